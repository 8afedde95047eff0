"""The web app behind app.py: a page, streams of motion, and downloads, for many visitors within limits.

options.py      command-line options
places.py       places that one network address can hold only a share of; addresses behind a proxy
requests.py     validation of a browser's request
service.py      queue of visitors, generation in turns, finished motions
downloads.py    finished motions as files; film.py is the process that draws a video
connections.py  limits on the number and the pace of connections
endpoints.py    the addresses of the app
"""
