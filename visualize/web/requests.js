// Requests to the server, and sentences about their failures.
"use strict";

/** A request that failed on its way or because the server is busy: sending it again may help. */
class Lost extends Error {}

/** Send a request; throws an error with a sentence unless the answer is good. */
async function answerOf(address, options) {
  const response = await reached(fetch(address, options));
  if (response.ok) return response;
  const { status } = response;
  const { error } = await response.json().catch(() => ({ error: `The server answered with status ${status}.` }));
  throw status >= 429 ? new Lost(error) : new Error(error);
}

/** Send a request for motion and yield the lines of its answer, parsed from JSON. */
async function* linesOf(address, request, signal) {
  const headers = { "Content-Type": "application/json", Accept: "application/x-ndjson" };
  const response = await answerOf(address, { method: "POST", headers, body: JSON.stringify(request), signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  let last = {};
  for (;;) {
    const { done, value } = await reached(reader.read());
    if (done && !last.done && !last.error) throw new Lost("The connection ended before the motion was finished.");
    if (done) return;
    const lines = (text + value).split("\n");
    text = lines.pop();
    for (const line of lines) yield (last = JSON.parse(line));
  }
}

/** Wait for the network; its errors, which browsers word differently, become a sentence. */
async function reached(promise) {
  try {
    return await promise;
  } catch (error) {
    throw error.name === "AbortError" ? error : new Lost("The connection to the server was lost.");
  }
}
