// The sentences of the document as a list: text, length and notes of each.
"use strict";

class SentenceList {
  /**
   * @param root   Element that receives the list; its attribute data-longest limits the characters.
   * @param edits  EditDocument.
   * @param limits Limits of the server: seconds and sentences.
   */
  constructor(root, edits, limits) {
    Object.assign(this, { edits, limits, longest: root.dataset.longest });
    this.notes = new Map(); // sentence -> texts about it
    this.focused = 0; // number of the sentence that was edited last
    this.rows = element("ol");
    this.add = element("button", { type: "button", textContent: "Add sentence" });
    this.add.addEventListener("click", () => this.#put(this.rows.children.length, 0, [""]));
    const heads = ["Sentence", "Seconds"].map((textContent) => element("span", { textContent }));
    root.append(element("div", { className: "heads", ariaHidden: true }, ...heads), this.rows, this.add);
    this.render();
  }

  /** Show the state of the document. */
  render() {
    const { sentences } = this.edits.state;
    fit(this.rows, sentences.length, (index) => this.#row(index));
    sentences.forEach((sentence, index) => {
      const { text, seconds, remove, notes } = this.rows.children[index].parts;
      if (text.value !== sentence.text) text.value = sentence.text;
      if (seconds.validity.valid && (Number(seconds.value) || null) !== sentence.seconds) {
        seconds.value = sentence.seconds ?? "";
      }
      remove.hidden = sentences.length < 2;
      const found = this.notes.get(sentence.text.trim()) ?? [];
      if (notes.textContent !== found.join("")) {
        notes.replaceChildren(...found.map((textContent) => element("p", { dir: "auto", textContent })));
      }
    });
    this.add.disabled = sentences.length >= this.limits.sentences;
  }

  /** Show notes beside the sentences that they are about, as long as these stay as they are. */
  note(notes) {
    this.notes = notes;
    this.render();
  }

  /** Mark the sentence that plays. */
  mark(number) {
    [...this.rows.children].forEach((row, index) => {
      row.classList.toggle("current", index === number);
      row.ariaCurrent = index === number ? "true" : null;
    });
  }

  /** Replace the sentence that was edited last. */
  fill(text) {
    const index = Math.min(this.focused, this.rows.children.length - 1);
    this.#change(index, { text }, null);
  }

  #row(index) {
    const number = index + 1;
    const notes = element("div", { className: "notes", id: `notes-${number}`, ariaLive: "polite" });
    const ariaLabel = `Sentence ${number}`;
    const text = element("textarea", { rows: 1, dir: "auto", maxLength: this.longest, ariaLabel });
    text.setAttribute("aria-describedby", notes.id);
    const seconds = element("input", { type: "number", min: 0.1, max: this.limits.seconds, step: 0.1 });
    Object.assign(seconds, { placeholder: "auto", ariaLabel: `Seconds of sentence ${number}` });
    seconds.title = `Automatic if empty; at most ${this.limits.seconds}`;
    const remove = element("button", { type: "button", textContent: "✕", ariaLabel: `Remove sentence ${number}` });
    text.addEventListener("input", () => this.#read(index, text));
    text.addEventListener("keydown", (event) => this.#key(event, index, text));
    seconds.addEventListener("input", () => {
      if (seconds.validity.valid) this.#change(index, { seconds: Number(seconds.value) || null }, `length ${index}`);
    });
    for (const field of [text, seconds]) {
      field.addEventListener("focus", () => (this.focused = index));
      field.addEventListener("blur", () => this.edits.settle());
    }
    remove.addEventListener("click", () => this.#remove(index));
    return Object.assign(element("li", {}, text, seconds, remove, notes), { parts: { text, seconds, remove, notes } });
  }

  #read(index, { value }) {
    const sentences = sentencesOf(value);
    if (/[|\n]/.test(value)) this.#put(index, 1, sentences);
    else this.#change(index, { text: value.trimStart() }, `text ${index}`);
  }

  /** Enter continues in a new sentence, and Backspace removes an empty one. */
  #key(event, index, { value, selectionStart, selectionEnd }) {
    if (event.ctrlKey || event.metaKey || event.isComposing) return;
    if (event.key === "Enter") this.#put(index, 1, [value.slice(0, selectionStart), value.slice(selectionEnd).trim()]);
    else if (event.key === "Backspace" && !value && this.rows.children.length > 1) this.#remove(index);
    else return;
    event.preventDefault();
  }

  #change(index, parts, gesture) {
    const { sentences } = this.edits.state;
    this.edits.change({ sentences: sentences.with(index, { ...sentences[index], ...parts }) }, gesture);
  }

  /** Put sentences in the place of `count` others, the first of which keeps its length, and enter the last one. */
  #put(index, count, texts) {
    const { sentences } = this.edits.state;
    const length = (number) => (number === 0 && count ? sentences[index].seconds : null);
    const made = texts.map((text, number) => ({ text, seconds: length(number) }));
    this.edits.change({ sentences: sentences.toSpliced(index, count, ...made) });
    this.rows.children[index + texts.length - 1].parts.text.focus();
  }

  #remove(index) {
    this.edits.change({ sentences: this.edits.state.sentences.toSpliced(index, 1) });
    this.rows.children[Math.max(0, index - 1)].parts.text.focus();
  }
}
