// Page of app.py: a form and a player that shows motions while they are generated.
"use strict";

class App {
  constructor(data) {
    this.data = data;
    this.form = document.querySelector("form");
    this.status = document.querySelector("[role=status]");
    this.downloads = document.querySelector(".downloads");
    this.player = new Player(document.querySelector(".stage"), new BodyParts(data.body));
    const { seed, seconds, variations, temperature, guidance, dice, stop } = this.form.elements;
    seconds.max = data.limits.seconds;
    seconds.placeholder = `automatic, at most ${data.limits.seconds}`;
    variations.max = data.limits.variations;
    temperature.value = data.defaults.temperature;
    guidance.value = data.defaults.guidance;
    guidance.closest("label").hidden = data.defaults.guidance === 1; // the model was trained without guidance
    dice.addEventListener("click", () => (seed.value = Math.floor(Math.random() * 1e6)));
    stop.addEventListener("click", () => this.abort?.abort());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#generate();
    });
    this.form.elements.prompts.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.form.requestSubmit();
    });
  }

  #request() {
    const { prompts, seed, seconds, variations, temperature, guidance } = this.form.elements;
    const request = {
      prompts: prompts.value.split("\n").map((line) => line.trim()).filter(Boolean),
      seed: Number(seed.value),
      variations: Number(variations.value),
      temperature: Number(temperature.value),
      guidance: Number(guidance.value),
    };
    if (seconds.value) request.seconds = Number(seconds.value);
    return request;
  }

  async #generate() {
    this.abort?.abort(); // one generation at a time per page
    const abort = (this.abort = new AbortController());
    const request = this.#request();
    const limit = this.data.limits.sentences;
    if (request.prompts.length < 1 || request.prompts.length > limit) {
      this.status.textContent = `Enter 1 to ${limit} sentences, one per line.`;
      return;
    }
    this.downloads.replaceChildren();
    this.#busy(true, "Requesting …");
    try {
      const response = await fetch("/generate", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(request),
        signal: abort.signal,
      });
      if (!response.ok) throw new Error((await response.json()).error);
      this.motions = null;
      for await (const line of this.#lines(response.body)) this.#receive(line, request);
    } catch (error) {
      if (this.abort === abort) this.status.textContent = abort.signal.aborted ? "Stopped." : error.message;
    }
    if (this.abort === abort) this.#busy(false);
  }

  async *#lines(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (text + value).split("\n");
      text = lines.pop();
      for (const line of lines) yield JSON.parse(line);
    }
  }

  #receive(line, request) {
    if (line.error) throw new Error(line.error);
    if (line.waiting) this.status.textContent = `Waiting: ${line.waiting} ahead of you in the queue …`;
    if (line.rotations) {
      this.motions ??= Array.from({ length: request.variations }, () => new Motion());
      const first = this.motions.every((motion) => motion.frames === 0);
      this.motions[line.variation].append(line);
      if (first) {
        this.player.show(this.motions, request.prompts.join(" → "));
        this.player.growing = true;
      }
      this.status.textContent = `Generating: ${this.player.seconds.toFixed(1)} s …`;
    }
    if (line.done) this.#finish(line);
  }

  #finish(line) {
    this.player.growing = false;
    this.status.textContent = `Done: ${this.player.seconds.toFixed(1)} s.`;
    line.names.forEach((name, number) => {
      const links = this.data.kinds.map((kind) =>
        element("a", { href: `/motion/${line.done}/${name}.${kind}`, download: "", textContent: kind }),
      );
      const label = line.names.length > 1 ? `Variation ${number + 1}: ` : "Download: ";
      this.downloads.append(element("p", {}, label, ...links.flatMap((link) => [link, " "])));
    });
  }

  #busy(busy, text) {
    this.form.elements.stop.disabled = !busy;
    if (!busy) this.player.growing = false;
    if (text) this.status.textContent = text;
  }
}

readData().then((data) => new App(data));
