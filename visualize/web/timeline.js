// The timeline under the stage: a bar per sentence, pinned poses, the time shown, and a selected span.
"use strict";

const MARGIN = 1.2; // the timeline is longer than the motion by this factor, so that the last bar can grow
const LENGTH_STEP = 0.1; // seconds, of lengths
const DRAG_PIXELS = 5; // a shorter movement is a click

class Timeline {
  /**
   * @param player  Player whose slider moves into the timeline.
   * @param edits   EditDocument.
   * @param longest Maximum length of a sentence in seconds.
   * @param selected Called when the selected span or the selected pose changes.
   */
  constructor(player, edits, longest, selected) {
    this.player = player;
    this.edits = edits;
    this.longest = longest;
    this.selected = selected;
    this.span = null; // { start, end } in seconds
    this.pose = null; // number of the selected keyframe
    this.held = false; // while a handle is dragged, the scale stays
    this.bars = element("div", { className: "bars" });
    this.marks = element("div", { className: "marks" });
    this.playhead = element("div", { className: "playhead" });
    this.shade = element("div", { className: "span" });
    this.spanEnds = ["start", "end"].map((side) => this.#spanEnd(side));
    this.root = element(
      "div",
      { className: "timeline", role: "group", ariaLabel: "timeline" },
      element("div", { className: "scrub" }, player.slider),
      element("div", { className: "rows" }, this.bars, this.marks, this.shade, ...this.spanEnds, this.playhead),
    );
    this.rows = this.root.lastChild;
    this.bars.addEventListener("pointerdown", (event) => this.#sweep(event));
    this.lengths = []; // seconds of the sentences of the motions on the stage
    this.current = null; // number of the sentence at the time shown
    this.entered = () => {}; // called with it when it changes
    player.drawn = (time) => {
      this.#place(this.playhead, time);
      this.#enter(this.#sentenceAt(time));
    };
    this.render();
  }

  /** Show the state of the document. */
  render() {
    const { state } = this.edits;
    const spans = spansOf(state);
    const end = Math.max(1, spans.at(-1) ? spans.at(-1).start + spans.at(-1).seconds : 0, this.player.seconds);
    if (!this.held) this.scale = MARGIN * end;
    this.player.span = this.scale;
    this.player.dirty = true; // for the slider and the playhead
    fit(this.bars, state.sentences.length, (index) => this.#bar(index));
    fit(this.marks, state.keyframes.length, (index) => this.#mark(index));
    state.sentences.forEach((sentence, index) => this.#showBar(index, sentence, spans[index]));
    state.keyframes.forEach(({ time }, index) => {
      const mark = this.marks.children[index];
      this.#set(mark, time, `pose ${index + 1}`, `${time.toFixed(2)} s`, 0, this.scale);
      mark.classList.toggle("selected", index === this.pose);
    });
    if (this.pose >= state.keyframes.length) this.selectPose(null);
    this.#enter(this.#sentenceAt(this.player.time), true);
    this.#showSpan();
  }

  /** Number of the sentence that a time belongs to, or null without motions. */
  #sentenceAt(time) {
    let end = 0;
    const number = this.lengths.findIndex((seconds) => (end += seconds) > time);
    return this.lengths.length ? (number < 0 ? this.lengths.length - 1 : number) : null;
  }

  #enter(number, changed = number !== this.current) {
    if (!changed) return;
    this.current = number;
    [...this.bars.children].forEach((bar, index) => bar.classList.toggle("current", index === number));
    this.entered(number);
  }

  select(span) {
    this.span = span && { start: Math.max(0, span.start), end: span.end };
    this.#showSpan();
    this.selected();
  }

  selectPose(index) {
    if (this.pose === index) return;
    this.pose = index;
    [...this.marks.children].forEach((mark, number) => mark.classList.toggle("selected", number === index));
    this.selected();
  }

  removePose(index) {
    this.edits.change({ keyframes: this.edits.state.keyframes.filter((_, number) => number !== index) });
    this.selectPose(null);
  }

  // --- Elements

  #bar(index) {
    const body = element("button", { type: "button", className: "bar" });
    const end = this.#handle("end", LENGTH_STEP, {
      move: (time) => this.#setLength(index, time - spansOf(this.edits.state)[index].start),
      remove: () => this.#setLength(index, null),
    });
    end.addEventListener("dblclick", () => this.#setLength(index, null));
    body.addEventListener("click", () => {
      const { start, seconds } = spansOf(this.edits.state)[index];
      this.select({ start, end: start + seconds });
    });
    body.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.select(null);
      if (event.key !== "Delete" || this.edits.state.sentences.length < 2) return;
      this.edits.change({ sentences: this.edits.state.sentences.filter((_, number) => number !== index) });
      this.bars.children[Math.max(0, index - 1)].firstChild.focus();
    });
    return element("div", { className: "sentence" }, body, end);
  }

  #showBar(index, sentence, { start, seconds }) {
    const root = this.bars.children[index];
    const [body, end] = root.children;
    this.#place(root, start);
    root.style.width = `${(100 * seconds) / this.scale}%`;
    root.classList.toggle("automatic", sentence.seconds === null);
    body.textContent = body.title = sentence.text;
    const length = `${seconds.toFixed(1)} s${sentence.seconds === null ? ", automatic" : ""}`;
    body.ariaLabel = `sentence ${index + 1}: ${sentence.text}, ${length}`;
    this.#describe(end, seconds, `length of sentence ${index + 1}`, length, SHORTEST, this.longest);
    end.time = start + seconds;
  }

  #mark(index) {
    const mark = this.#handle("mark", 1 / FPS, {
      move: (time) => {
        const keyframes = this.edits.state.keyframes.with(index, {
          ...this.edits.state.keyframes[index],
          time: Math.round(Math.min(Math.max(time, 0), this.scale) * FPS) / FPS,
        });
        this.edits.change({ keyframes }, `pose ${index}`);
        this.player.seek(keyframes[index].time);
      },
      remove: () => this.removePose(index),
    });
    mark.addEventListener("focus", () => {
      this.selectPose(index);
      this.player.play(false);
      this.player.seek(this.edits.state.keyframes[index].time);
    });
    return mark;
  }

  #spanEnd(side) {
    return this.#handle(`span-${side}`, LENGTH_STEP, {
      move: (time) => {
        const { start, end } = this.span;
        if (side === "start") this.select({ start: Math.min(time, end - SHORTEST), end });
        else this.select({ start, end: Math.min(Math.max(time, start + SHORTEST), this.scale) });
      },
      remove: () => this.select(null),
    });
  }

  #showSpan() {
    for (const part of [this.shade, ...this.spanEnds]) part.hidden = !this.span;
    if (!this.span) return;
    const { start, end } = this.span;
    this.#place(this.shade, start);
    this.shade.style.width = `${(100 * (end - start)) / this.scale}%`;
    this.#set(this.spanEnds[0], start, "start of the selection", `${start.toFixed(1)} s`, 0, end - SHORTEST);
    this.#set(this.spanEnds[1], end, "end of the selection", `${end.toFixed(1)} s`, start + SHORTEST, this.scale);
  }

  /** A handle at a time: dragged with a mouse or finger, moved by arrow keys, removed by Delete or Backspace. */
  #handle(className, step, { move, remove }) {
    const handle = element("div", { className: `handle ${className}`, tabIndex: 0, role: "slider" });
    handle.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.preventDefault();
      event.stopPropagation();
      handle.focus();
      const grip = this.#time(event) - handle.time;
      this.#drag(handle, event, (moved) => move(this.#time(moved) - grip));
    });
    handle.addEventListener("keydown", (event) => {
      const direction = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
      if (direction) move(handle.time + direction * step * (event.shiftKey ? 10 : 1));
      else if (event.key === "Delete" || event.key === "Backspace") remove();
      else if (event.key === "Escape") this.select(null);
      else return;
      event.preventDefault();
    });
    handle.addEventListener("blur", () => this.edits.settle());
    return handle;
  }

  // --- Pointer

  /** Select a span by sweeping over the bars; a click is left to the bar. */
  #sweep(down) {
    if (down.button !== 0) return;
    const from = this.#time(down);
    const move = (event) => {
      if (Math.abs(event.clientX - down.clientX) < DRAG_PIXELS) return;
      stop();
      this.#drag(this.bars, event, (moved) => {
        const [start, end] = [from, Math.min(Math.max(this.#time(moved), 0), this.scale)].sort((a, b) => a - b);
        this.select({ start, end: Math.max(end, start + SHORTEST) });
      });
    };
    const stop = () => {
      this.bars.removeEventListener("pointermove", move);
      this.bars.removeEventListener("pointerup", stop);
      this.bars.removeEventListener("pointercancel", stop);
    };
    this.bars.addEventListener("pointermove", move);
    this.bars.addEventListener("pointerup", stop);
    this.bars.addEventListener("pointercancel", stop);
  }

  /** Call `move` for the movements of a pointer until it is released. */
  #drag(target, event, move) {
    this.held = true;
    target.setPointerCapture(event.pointerId);
    target.addEventListener("pointermove", move);
    const end = () => {
      target.removeEventListener("pointermove", move);
      this.held = false;
      this.edits.settle();
      this.render();
    };
    target.addEventListener("lostpointercapture", end, { once: true });
  }

  #time(event) {
    const { left, width } = this.rows.getBoundingClientRect();
    return ((event.clientX - left) / width) * this.scale;
  }

  // --- Helpers

  #setLength(index, seconds) {
    const length = seconds === null ? null : Math.min(Math.max(rounded(seconds), SHORTEST), this.longest);
    const { sentences } = this.edits.state;
    this.edits.change({ sentences: sentences.with(index, { ...sentences[index], seconds: length }) }, `length ${index}`);
  }

  #place(target, time) {
    target.style.left = `${(100 * time) / this.scale}%`;
  }

  /** Move a handle to a time and describe it. */
  #set(handle, time, label, text, low, high) {
    handle.time = time;
    this.#place(handle, time);
    this.#describe(handle, time, label, text, low, high);
  }

  #describe(handle, value, label, text, low, high) {
    Object.assign(handle, { ariaLabel: label, ariaValueText: text, ariaValueNow: value.toFixed(2) });
    Object.assign(handle, { ariaValueMin: low.toFixed(2), ariaValueMax: high.toFixed(2) });
  }
}
