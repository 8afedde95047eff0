// Page of app.py: a form, and an editor that shows motions while they are generated.
"use strict";

const MISSED = 0.1; // metres

class App {
  constructor(data) {
    this.data = data;
    this.form = document.querySelector("form");
    this.status = document.querySelector("[role=status]");
    this.downloads = document.querySelector(".downloads");
    this.far = document.getElementById("far");
    const { prompts, seed, seconds, variations, temperature, guidance, dice, stop } = this.form.elements;
    seconds.max = data.limits.seconds;
    variations.max = data.limits.variations;
    temperature.value = data.defaults.temperature;
    guidance.value = data.defaults.guidance;
    guidance.closest("label").hidden = data.defaults.guidance === 1; // the model was trained without guidance
    this.player = new Player(document.querySelector(".stage"), new BodyParts(data.body));
    this.editor = new Editor(this.player, data, sentencesOf(prompts.value, []), this);
    this.editor.render();
    new KnownActions(document.querySelector(".known"), data.actions, (sentence) => this.#fill(sentence));
    dice.addEventListener("click", () => (seed.value = randomSeed()));
    stop.addEventListener("click", () => this.abort?.abort());
    prompts.addEventListener("input", () => this.#readSentences("text"));
    seconds.addEventListener("input", () => this.#readSeconds());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#generate();
    });
    prompts.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.form.requestSubmit();
    });
  }

  // --- The form and the document

  #readSentences(gesture) {
    const { edits, state } = this.editor;
    edits.change({ sentences: sentencesOf(this.form.elements.prompts.value, state.sentences) }, gesture);
  }

  /** Replace the line of the caret with a sentence. */
  #fill(sentence) {
    const { prompts } = this.form.elements;
    const { value, selectionStart, selectionEnd } = prompts;
    const start = value.slice(0, selectionStart).lastIndexOf("\n") + 1;
    const end = value.indexOf("\n", selectionEnd);
    prompts.setRangeText(sentence, start, end < 0 ? value.length : end, "end");
    this.#readSentences(null);
  }

  #readSeconds() {
    const { value, validity } = this.form.elements.seconds;
    if (!validity.valid) return;
    const seconds = value ? Number(value) : null;
    const { edits, state } = this.editor;
    edits.change({ sentences: state.sentences.map(({ text }) => ({ text, seconds })) }, "seconds");
  }

  /** Show the document in the form; called after each edit. */
  changed() {
    const { state } = this.editor;
    const { prompts, seconds } = this.form.elements;
    const lines = (sentences) => sentences.map(({ text }) => text).join("\n");
    if (lines(sentencesOf(prompts.value, [])) !== lines(state.sentences)) prompts.value = lines(state.sentences);
    const lengths = new Set(state.sentences.map((sentence) => sentence.seconds));
    const [common] = lengths.size === 1 ? lengths : [null];
    if ((Number(seconds.value) || null) !== common) seconds.value = common ?? "";
    seconds.placeholder = lengths.size > 1 ? "as on the timeline" : `automatic, at most ${this.data.limits.seconds}`;
    if (state.shown !== this.offered) this.#offer(state.shown);
    if (this.abort) return; // the status tells of the work
    const current = !state.shown || state.shown.request === JSON.stringify(this.editor.request());
    if (!current) this.status.textContent = "Changed. Generate shows the result.";
    else if (state.shown) this.status.textContent = `Done: ${this.player.seconds.toFixed(1)} s.${misses(state.shown)}`;
  }

  // --- Requests

  #generate() {
    const { seed, variations, temperature, guidance } = this.form.elements;
    const request = this.editor.request();
    const limit = this.data.limits.sentences;
    if (request.prompts.length < 1 || request.prompts.length > limit) {
      this.status.textContent = `Enter 1 to ${limit} sentences, one per line.`;
      return;
    }
    const settings = {
      seed: Number(seed.value),
      variations: Number(variations.value),
      temperature: Number(temperature.value),
      guidance: Number(guidance.value),
    };
    this.#send("/api/v1/generate", { ...request, ...settings }, {
      title: request.prompts.join(" → "),
      count: settings.variations,
      asked: JSON.stringify(request),
    });
  }

  /** Make a span of the motions shown anew with a sentence. */
  redo(span, text) {
    const { shown } = this.editor.state;
    const sentences = withSentence(this.editor.state, span, text);
    const end = Math.max(...shown.motions.map((motion) => motion.frames)) / FPS;
    const near = (time) => (time < SHORTEST ? 0 : time > end - SHORTEST ? Number(end.toFixed(2)) : time); // no tiny rest
    const request = { motion: shown.token, from: near(span.start), to: near(span.end), prompt: text, seed: randomSeed() };
    const title = sentences.map((sentence) => sentence.text).join(" → ");
    this.#send("/api/v1/redo", request, { title, count: shown.names.length, sentences });
  }

  /** Make the motions shown seamless: on their way, or in place. */
  loop(travel) {
    const { shown } = this.editor.state;
    this.#send("/api/v1/loop", { motion: shown.token, travel }, { title: shown.title, count: shown.names.length, asked: shown.request });
  }

  /**
   * Send a request and show the motions that come back.
   * @param work Their title and count; what the editor asked for (to tell later whether it has changed), or, if the
   *             motions were edited, their sentences.
   */
  async #send(address, request, work) {
    this.abort?.abort(); // one request at a time per page
    const abort = (this.abort = new AbortController());
    const received = { ...work, motions: Array.from({ length: work.count }, () => new Motion()), lengths: [] };
    this.#offer(null);
    this.far.replaceChildren();
    this.form.elements.stop.disabled = false;
    this.status.textContent = "Requesting …";
    let sentence;
    try {
      for await (const line of linesOf(address, request, abort.signal)) this.#receive(line, received);
    } catch (error) {
      sentence = abort.signal.aborted ? "Stopped." : error.message;
    }
    if (this.abort !== abort) return;
    this.abort = null;
    this.form.elements.stop.disabled = true;
    this.player.growing = false;
    if (received.done) this.#finish(received);
    else if (!received.motions[0].frames) this.#offer(this.editor.state.shown);
    if (sentence) this.status.textContent = sentence;
  }

  #receive(line, received) {
    if (line.error) throw new Error(line.error);
    if (line.waiting) this.status.textContent = `Waiting: ${line.waiting} ahead of you in the queue …`;
    if (line.far) this.far.replaceChildren(...line.far.map((each) => element("p", { dir: "auto" }, describeFar(each))));
    if (line.rotations) {
      const { motions, lengths } = received;
      const first = motions.every((motion) => motion.frames === 0);
      const before = motions[0].frames;
      motions[line.variation].append(line);
      lengths[line.part] = (lengths[line.part] ?? 0) + (motions[0].frames - before) / FPS;
      if (first) {
        this.editor.display(motions, received.title);
        this.player.growing = true;
      }
      this.status.textContent = `Generating: ${this.player.seconds.toFixed(1)} s …`;
    }
    if (line.done) Object.assign(received, line);
  }

  #finish({ title, motions, done, names, errors, lengths, asked, sentences = this.editor.state.sentences }) {
    const shown = { title, motions, lengths, token: done, names, errors, request: asked };
    if (!asked) {
      shown.lengths = spansOf({ ...this.editor.state, sentences }).map(({ seconds }) => seconds);
      shown.request = JSON.stringify(this.editor.request(sentences));
    }
    this.editor.keep(shown, sentences);
  }

  #offer(shown) {
    this.offered = shown;
    const links = (name) =>
      this.data.kinds.map((kind) =>
        element("a", { href: `/api/v1/motion/${shown.token}/${name}.${kind}`, download: "", textContent: kind }),
      );
    const label = (number) => (shown.names.length > 1 ? `Variation ${number + 1}: ` : "Download: ");
    const rows = (shown?.names ?? []).map((name, number) =>
      element("p", {}, label(number), ...links(name).flatMap((link) => [link, " "])),
    );
    this.downloads.replaceChildren(...rows);
  }
}

/** Send a request and yield the lines of its answer, parsed from JSON. */
async function* linesOf(address, request, signal) {
  const response = await fetch(address, {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "application/x-ndjson" },
    body: JSON.stringify(request),
    signal,
  });
  if (!response.ok) throw new Error((await response.json()).error);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (text + value).split("\n");
    text = lines.pop();
    for (const line of lines) yield JSON.parse(line);
  }
}

/** Sentences about the constraints that motions miss by more than the width of a hand. */
function misses({ names, errors }) {
  const variation = (number) => (names.length > 1 ? ` in variation ${number + 1}` : "");
  const missed = errors.flatMap((list, number) =>
    list
      .filter(({ error }) => error > MISSED)
      .map(({ name, error }) => ` Missed by ${error.toFixed(2)} m${variation(number)}: ${name}.`),
  );
  return missed.join("");
}

/** A sentence that is unlike all captions that the model knows, and the closest of them. */
function describeFar({ sentence, closest, similarity }) {
  return `“${sentence}” is far from all training captions; closest known: ${closest} (${similarity.toFixed(2)})`;
}

function randomSeed() {
  return Math.floor(Math.random() * 1e6);
}

readData().then((data) => new App(data));
