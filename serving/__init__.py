"""The web app behind app.py: a page, streams of motion, and downloads, with limits per visitor.

options.py      command-line options
places.py       limits per network address; addresses behind a proxy
schemas.py      bodies of requests and answers, from which the OpenAPI document is made
requests.py     requests for motion within the limits
edits.py        edits of finished motions: a part made anew, loops
service.py      queue of visitors, generation for several of them at a time, finished motions
downloads.py    finished motions as files; film.py is the process that draws a video
characters.py   characters of visitors; rigging.py is the process that reads one
metrics.py      metrics in the form of Prometheus
errors.py       refusals with their HTTP status
connections.py  limits on the number and speed of connections
answers.py      reading of requests, refusals, files and streams
endpoints.py    HTTP endpoints
"""
