// The editor of app.py: a toolbar and a timeline under the stage, a path and pinned poses on it.
"use strict";

class Editor {
  /**
   * @param player    Player on whose stage the motions are shown.
   * @param data      Data of the page: body and limits.
   * @param start     Sentences, settings, path and keyframes at the start.
   * @param app       Has changed(), called after each edit, and redo(span, text) and loop(travel) for the toolbar.
   */
  constructor(player, data, start, app) {
    Object.assign(this, { player, app, limits: data.limits });
    this.edits = new EditDocument({ ...start, shown: null }, () => this.render());
    this.shown = null; // of the state that was rendered last
    this.path = new FloorPath(player, data.limits.path, (path, complete) => {
      this.edits.change({ path }, "path");
      if (complete) this.#drawPath(false);
    });
    this.poses = new PinnedPoses(player);
    this.timeline = new Timeline(player, this.edits, data.limits.seconds, () => this.#enable());
    this.#makeToolbar();
    player.root.lastChild.before(this.toolbar, this.timeline.root);
    window.addEventListener("keydown", (event) => this.#shortcut(event));
    player.idle = standing(player.stage.parts);
    this.display([], "");
  }

  get state() {
    return this.edits.state;
  }

  /** What the server is asked for, without the settings of the form. */
  request(sentences = this.state.sentences) {
    const { path, keyframes } = this.state;
    const request = { prompts: sentences.map(({ text }) => text.trim()), seconds: sentences.map(({ seconds }) => seconds) };
    const constraints = {};
    if (path.length) constraints.path = { points: path };
    if (keyframes.length) {
      constraints.keyframes = keyframes.map(({ time, pose }) => ({ time, pose: [smplx85Of(pose)], place: "file" }));
    }
    return Object.keys(constraints).length ? { ...request, constraints } : request;
  }

  /** Put motions on the stage; `lengths` are the seconds of their sentences, which may grow. */
  display(motions, title, lengths = []) {
    this.displayed = motions;
    this.timeline.lengths = lengths;
    this.player.show(motions, title);
    this.path.show(this.state.path);
    this.poses.show(this.state.keyframes);
  }

  /** Keep finished motions as a step that can be undone, with the sentences that they were made from. */
  keep(shown, sentences = this.state.sentences) {
    this.edits.change({ shown, sentences });
  }

  /** Show the state of the document. */
  render() {
    const { path, keyframes, shown } = this.state;
    if (shown !== this.shown) {
      this.shown = shown;
      const { time, playing } = this.player;
      if (shown?.motions !== this.displayed) this.display(shown?.motions ?? [], shown?.title ?? "");
      this.timeline.lengths = shown?.lengths ?? [];
      this.player.seek(time);
      this.player.play(playing);
    }
    this.path.show(path);
    this.poses.show(keyframes);
    this.timeline.render();
    this.#enable();
    this.app.changed();
  }

  // --- Toolbar

  #makeToolbar() {
    const button = (textContent, act, ariaLabel = textContent) => {
      const made = element("button", { type: "button", textContent, ariaLabel, title: ariaLabel });
      made.addEventListener("click", act);
      return made;
    };
    const { edits, timeline } = this;
    this.undo = button("↶", () => edits.undo(), "Undo");
    this.redo = button("↷", () => edits.redo(), "Redo");
    this.draw = button("Draw path", () => this.#drawPath(!this.path.drawing));
    this.clear = button("Clear", () => edits.change({ path: [] }), "Clear path");
    this.pin = button("Pin pose", () => this.#pin());
    this.unpin = button("Remove", () => timeline.removePose(timeline.pose), "Remove pose");
    this.loops = [button("Loop", () => this.app.loop(true)), button("Loop in place", () => this.app.loop(false))];
    this.sentence = element("input", { type: "text", ariaLabel: "sentence of the selection", dir: "auto" });
    this.remake = button("Redo selection", () => this.#remake());
    this.deselect = button("✕", () => timeline.select(null), "Clear selection");
    this.sentence.addEventListener("keydown", (event) => event.key === "Enter" && this.#remake());
    const group = (...parts) => element("span", { className: "group" }, ...parts);
    this.selection = group(this.sentence, this.remake, this.deselect);
    this.selection.classList.add("selection");
    this.toolbar = element(
      "div",
      { className: "toolbar", role: "toolbar", ariaLabel: "editing" },
      group(this.undo, this.redo),
      group(this.draw, this.clear),
      group(this.pin, this.unpin),
      group(...this.loops),
      this.selection,
    );
  }

  #enable() {
    const { edits, timeline, state } = this;
    this.undo.disabled = !edits.canUndo;
    this.redo.disabled = !edits.canRedo;
    this.draw.ariaPressed = this.path.drawing;
    this.clear.hidden = !state.path.length;
    this.pin.disabled = !this.displayed?.[0]?.frames || state.keyframes.length >= this.limits.keyframes;
    this.unpin.hidden = timeline.pose === null;
    for (const button of [...this.loops, this.remake]) button.disabled = !state.shown;
    const { span } = timeline;
    this.selection.hidden = !span;
    if (span && span !== this.prefilled) this.#prefill(span);
  }

  /** Enter the sentence of the bar under the middle of a new selection, unless something else was typed. */
  #prefill(span) {
    const middle = (span.start + span.end) / 2;
    const index = spansOf(this.state).findLastIndex(({ start }) => start <= middle);
    const text = this.state.sentences[index]?.text ?? "";
    if (!this.prefilled || this.sentence.value === this.suggested) this.sentence.value = text;
    this.suggested = text;
    this.prefilled = span;
  }

  #drawPath(drawing) {
    this.path.mode(drawing);
    if (drawing) this.player.canvas.focus();
    else this.edits.settle();
    this.#enable();
  }

  #pin() {
    const motion = this.displayed[0];
    const frame = Math.min(Math.round(this.player.time * FPS), motion.frames - 1);
    this.player.play(false);
    const keyframe = { time: frame / FPS, pose: poseOf(motion, frame) };
    const others = this.state.keyframes.filter(({ time }) => time !== keyframe.time);
    this.edits.change({ keyframes: [...others, keyframe], sentences: withFixedLengths(this.state, keyframe.time) });
    this.player.seek(keyframe.time);
  }

  #remake() {
    const { span } = this.timeline;
    if (span && this.state.shown) this.app.redo(span, this.sentence.value.trim());
  }

  #shortcut(event) {
    if (event.key === "Escape" && this.path.drawing) this.#drawPath(false);
    const writing = event.target.matches?.("textarea, input:not([type=range])");
    if (writing || !(event.ctrlKey || event.metaKey)) return;
    const key = event.key.toLowerCase();
    if (key === "z" && !event.shiftKey) this.edits.undo();
    else if (key === "y" || key === "z") this.edits.redo();
    else return;
    event.preventDefault();
  }
}
