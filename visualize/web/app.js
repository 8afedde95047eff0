// Page of app.py: a form, and an editor that shows motions while they are generated.
"use strict";

const MISSED = 0.1; // metres
const START = "a person walks forward"; // without an example of the server
const LINK_MILLISECONDS = 300; // between changes of the address, which browsers limit
const NARROW = window.matchMedia("(max-width: 700px)"); // the stage is above the form

class App {
  constructor(data) {
    this.data = data;
    this.form = document.querySelector("form");
    this.status = document.querySelector("[role=status]");
    this.player = new Player(document.querySelector(".stage"), new BodyParts(data.body));
    this.downloads = new DownloadRows(document.querySelector(".downloads"), data, this);
    this.#prepareForm();
    const fragment = location.hash.slice(1);
    this.editor = new Editor(this.player, data, documentOf(fragment, this.#start(), data.limits), this);
    this.list = new SentenceList(document.querySelector(".sentences"), this.editor.edits, data.limits);
    this.editor.timeline.entered = (number) => this.list.mark(number);
    new KnownActions(document.querySelector(".known"), data.actions, (sentence) => this.list.fill(sentence));
    this.#listen();
    this.editor.render();
    if (new URLSearchParams(fragment).has("play")) this.#generate();
    else if (data.example && !fragment) this.#showExample(data.example);
  }

  // --- The form and the document

  #start() {
    const { temperature, guidance } = this.data.defaults;
    const prompts = this.data.example?.prompts ?? [START];
    const sentences = prompts.map((text) => ({ text, seconds: null }));
    const settings = { seed: 0, variations: 1, temperature, guidance, foot_lock: true };
    return { sentences, settings, path: [], keyframes: [] };
  }

  #prepareForm() {
    const { limits, defaults, rights } = this.data;
    const { variations, guidance } = this.form.elements;
    variations.max = limits.variations;
    guidance.closest("label").hidden = defaults.guidance === 1; // the model was trained without guidance
    const reach = `Up to ${limits.sentences} sentences in English, of up to ${limits.seconds} s each.`;
    const lines = rights ? [reach, `Motions are ${rights}.`] : [reach];
    this.form.querySelector("footer").append(...lines.map((textContent) => element("p", { textContent })));
    if (/Mac|iP/.test(navigator.platform)) this.form.querySelector("kbd").textContent = "⌘ Enter";
    const stage = document.querySelector(".stage");
    const order = () => (NARROW.matches ? this.form.before(stage) : this.form.after(stage));
    NARROW.addEventListener("change", order); // the focus then moves as the eye does
    order();
  }

  #listen() {
    const { dice, stop, retry, link, feet } = this.form.elements;
    for (const name of NUMBERS) {
      const input = this.form.elements[name];
      input.addEventListener("input", () => {
        if (input.validity.valid) this.#set(name, Number(input.value));
      });
      input.addEventListener("blur", () => this.editor.edits.settle());
    }
    feet.addEventListener("change", () => this.#set("foot_lock", feet.checked));
    dice.addEventListener("click", () => this.#set("seed", randomSeed()));
    stop.addEventListener("click", () => this.#stop());
    retry.addEventListener("click", () => this.again());
    link.addEventListener("click", () => this.#copyLink());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#generate();
    });
    window.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.form.requestSubmit();
    });
  }

  #set(name, value) {
    const { edits, state } = this.editor;
    edits.change({ settings: { ...state.settings, [name]: value } }, `setting ${name}`);
  }

  /** Show the document in the form; called after each edit. */
  changed() {
    if (!this.list) return; // the editor is being made
    const { state } = this.editor;
    this.list.render();
    for (const name of NUMBERS) {
      const input = this.form.elements[name];
      const typed = input === document.activeElement && !input.validity.valid; // not a number yet
      if (!typed && Number(input.value || NaN) !== state.settings[name]) input.value = state.settings[name];
    }
    this.form.elements.feet.checked = state.settings.foot_lock;
    if (state.shown !== this.offered) this.#offer(state.shown);
    this.#writeLink();
    if (this.abort) return; // the status tells of the work
    const current = !state.shown || state.shown.request === JSON.stringify(this.#request());
    if (!current) this.say("Changed. Generate shows the result.");
    else if (state.shown) this.say(`${done(state.shown)}: ${this.player.seconds.toFixed(1)} s.${misses(state.shown)}`);
  }

  /** Show a sentence, with a button if the work can be tried again. */
  say(text, again = null) {
    this.status.textContent = text;
    this.again = again;
    this.form.elements.retry.hidden = !again;
  }

  // --- The link

  /** Let the address follow the document, at once or after a short time, so that a reload keeps it. */
  #writeLink() {
    const wait = LINK_MILLISECONDS - (performance.now() - (this.written ?? -Infinity));
    clearTimeout(this.writing);
    if (wait > 0) {
      this.writing = setTimeout(() => this.#writeLink(), wait);
    } else if (this.editor.edits.canUndo || location.hash) {
      this.written = performance.now();
      history.replaceState(null, "", `#${fragmentOf(this.editor.state)}`);
    }
  }

  async #copyLink() {
    const fragment = fragmentOf(this.editor.state);
    const lacks = this.editor.state.shown?.edited ? " It holds neither redone parts nor loops." : "";
    try {
      await navigator.clipboard.writeText(`${location.origin}${location.pathname}#${fragment}&play=1`);
      this.say(`Link copied; it makes the same motion.${lacks}`);
    } catch { // without https
      history.replaceState(null, "", `#${fragment}`);
      this.say(`Copy the address of this page; it holds the sentences and the settings.${lacks}`);
    }
  }

  // --- Requests

  /** What the server is asked for. */
  #request(sentences = this.editor.state.sentences) {
    return { ...this.editor.request(sentences), ...this.editor.state.settings };
  }

  #generate() {
    const { edits } = this.editor;
    const written = edits.state.sentences.filter(({ text }) => text.trim());
    const limit = this.data.limits.sentences;
    if (written.length < 1 || written.length > limit) return this.say(`Enter 1 to ${limit} sentences.`);
    if (written.length < edits.state.sentences.length) edits.change({ sentences: written });
    const request = this.#request();
    this.#send("/generate", request, workOf(request));
  }

  /** Make a span of the motions shown anew with a sentence. */
  redo(span, text) {
    const { shown } = this.editor.state;
    const sentences = withSentence(this.editor.state, span, text);
    const end = Math.max(...shown.motions.map((motion) => motion.frames)) / FPS;
    const last = Number(end.toFixed(2));
    const near = (time) => (time < SHORTEST ? 0 : time > end - SHORTEST ? last : time); // no tiny rest
    const part = { from: near(span.start), to: near(span.end), prompt: text, seed: randomSeed() };
    const title = sentences.map((sentence) => sentence.text).join(" → ");
    const request = { motion: shown.token, names: shown.names, ...part };
    this.#send("/redo", request, { title, count: shown.names.length, sentences, edited: true });
  }

  /** Make the motions shown seamless: on their way, or in place. */
  loop(travel) {
    const { shown, settings } = this.editor.state;
    const request = { motion: shown.token, names: shown.names, travel, foot_lock: settings.foot_lock };
    const { title, names, request: asked } = shown;
    this.#send("/loop", request, { title, count: names.length, asked, edited: true });
  }

  /** Keep one of the variations shown; the seed becomes its own. */
  keep(number) {
    const { edits, state } = this.editor;
    const { motions, names, errors, request, ...rest } = state.shown;
    const asked = JSON.parse(request);
    const own = { seed: asked.seed + number, variations: 1 };
    const [motion, name, error] = [motions, names, errors].map((values) => [values[number]]);
    const kept = { motions: motion, names: name, errors: error, request: JSON.stringify({ ...asked, ...own }) };
    edits.change({ shown: { ...rest, ...kept }, settings: { ...state.settings, ...own } });
  }

  /** End the work; the server is asked to finish with what it has made. */
  #stop() {
    const { abort, token } = this;
    if (!token) return abort.abort();
    this.say("Stopping …");
    answerOf(`${this.data.api}/motion/${token}/stop`, { method: "POST" }).catch(() => abort.abort());
  }

  /**
   * Send a request and show the motions that come back.
   * @param work Their title and count; what was asked for (to tell later whether it has changed), or, if the motions
   *             were edited, their sentences.
   */
  async #send(address, request, work) {
    this.abort?.abort(); // one request at a time per page
    const abort = (this.abort = new AbortController());
    const received = startOf(work);
    this.token = null;
    this.#offer(null);
    this.list.note(new Map());
    this.form.elements.stop.disabled = false;
    this.say("Requesting …");
    let failure;
    try {
      for await (const line of linesOf(this.data.api + address, request, abort.signal)) this.#receive(line, received);
    } catch (error) {
      const again = error instanceof Lost ? () => this.#send(address, request, work) : null;
      failure = abort.signal.aborted ? ["Stopped."] : [error.message, again];
    }
    if (this.abort !== abort) return;
    this.abort = null;
    this.form.elements.stop.disabled = true;
    this.player.growing = false;
    if (received.done) this.#finish(received);
    else if (!received.motions[0].frames) this.#offer(this.editor.state.shown);
    if (failure) this.say(...failure);
  }

  #receive(line, received) {
    if (line.error) throw new Error(line.error);
    if (line.motion) this.token = line.motion;
    if (line.waiting) this.say(`Waiting: ${line.waiting} ahead of you in the queue …`);
    if (line.far || line.cut || line.foreign) this.list.note(notesOf(line));
    if (line.whole) Object.assign(received.motions[line.variation], Motion.from(line));
    else if (line.rotations) this.#grow(line, received);
    if (line.done) Object.assign(received, line);
  }

  #grow(line, received) {
    const { motions, lengths, title } = received;
    const first = motions.every((motion) => motion.frames === 0);
    const before = motions[0].frames;
    motions[line.variation].append(line);
    lengths[line.part] = (lengths[line.part] ?? 0) + (motions[0].frames - before) / FPS;
    if (first) {
      this.editor.display(motions, title, received.edited ? [] : lengths);
      this.player.growing = true;
    }
    this.say(`Generating: ${this.player.seconds.toFixed(1)} s …`);
  }

  #finish(received) {
    const { sentences = this.editor.state.sentences } = received;
    const shown = shownOf(received);
    if (!shown.request) {
      shown.lengths = spansOf({ ...this.editor.state, sentences }).map(({ seconds }) => seconds);
      shown.request = JSON.stringify(this.#request(sentences));
    }
    this.editor.keep(shown, sentences);
  }

  /** Show the motion that the server has made in advance, from the lines of its answer. */
  #showExample({ lines }) {
    const received = startOf(workOf(this.#request()));
    for (const line of lines) this.#receive(line, received);
    this.player.growing = false;
    this.editor.edits.start({ shown: shownOf(received) });
  }

  #offer(shown) {
    this.offered = shown;
    this.downloads.show(shown);
  }
}

// --- Work and its results

/** What is to be told of the motions that a request makes. */
function workOf(request) {
  return { title: request.prompts.join(" → "), count: request.variations, asked: JSON.stringify(request) };
}

/** The motions of a work before the first frame. */
function startOf(work) {
  return { ...work, motions: Array.from({ length: work.count }, () => new Motion()), lengths: [] };
}

/** The finished motions of a work, as a document holds them. */
function shownOf({ title, motions, done, names, errors, lengths, asked, edited, stopped }) {
  return { title, motions, lengths, token: done, names, errors, request: asked, edited, stopped };
}

function done({ stopped }) {
  return stopped ? "Stopped" : "Done";
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

/** Why sentences may not be followed: texts by sentence. */
function notesOf({ far = [], cut = [], foreign = [] }) {
  const notes = new Map();
  const add = (sentence, text) => notes.set(sentence, [...(notes.get(sentence) ?? []), text]);
  for (const sentence of cut) add(sentence, "Too long: the model reads only the beginning.");
  for (const sentence of foreign) add(sentence, "Not in English, which the model expects.");
  for (const { sentence, closest, similarity } of far) {
    add(sentence, `Far from all training captions; closest known: ${closest} (${similarity.toFixed(2)})`);
  }
  return notes;
}

function randomSeed() {
  return Math.floor(Math.random() * 1e6);
}

readData().then((data) => new App(data));
