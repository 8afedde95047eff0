// Page of many motions: one card per motion, all drawn by one WebGL canvas; a card plays under the pointer.
"use strict";

const CARD = 320; // pixels: side of a card's picture
const POSTER = 0.4; // time of the poster, as a share of the motion

class Gallery {
  constructor(data) {
    this.parts = new BodyParts(data.body);
    this.stage = new Stage(document.createElement("canvas"), this.parts);
    this.stage.resize(CARD, CARD, 1);
    this.search = document.querySelector("input[type=search]");
    this.count = document.querySelector("header output");
    this.dialog = document.querySelector("dialog");
    this.dialog.ariaLabel = "player";
    this.waiting = []; // cards whose poster is not drawn yet
    const seen = new IntersectionObserver((entries) => this.#drawPosters(entries, seen), { rootMargin: "200px" });
    this.cards = data.motions.map((packed) => this.#card(packed));
    this.nothing = element("p", { className: "nothing" });
    document.querySelector("main").append(this.nothing, ...this.cards.map((card) => card.root));
    this.cards.forEach((card) => seen.observe(card.root));
    DARK.addEventListener("change", () => this.cards.forEach((card) => seen.observe(card.root))); // draws them again
    this.search.addEventListener("input", () => this.#filter());
    this.dialog.addEventListener("close", () => this.player.play(false));
    this.dialog.querySelector(".close").addEventListener("click", () => this.dialog.close());
    this.#filter();
  }

  #card(packed) {
    const picture = element("canvas", { width: CARD, height: CARD });
    const caption = element("span", { className: "prompt", dir: "auto", textContent: packed.title });
    const note = element("small", { textContent: packed.note });
    const root = element("button", { type: "button", className: "card" }, picture, caption, note);
    const card = { root, packed, picture: picture.getContext("2d"), text: `${packed.title} ${packed.note}`.toLowerCase() };
    for (const event of ["pointerenter", "focus"]) root.addEventListener(event, () => this.#play(card));
    for (const event of ["pointerleave", "blur"]) root.addEventListener(event, () => this.#stop(card));
    root.addEventListener("click", () => this.#open(card));
    return card;
  }

  /** The motion of a card, unpacked on first use. */
  #motion(card) {
    card.motion ??= Motion.from(card.packed);
    return card.motion;
  }

  #draw(card, time) {
    const motion = this.#motion(card);
    if (this.stage.motions[0] !== motion) this.stage.show([motion]);
    this.stage.moveTo(this.stage.centre(time, new THREE.Vector3()));
    this.stage.draw(time);
    card.picture.drawImage(this.stage.renderer.domElement, 0, 0);
  }

  /** Draw posters of cards that came into view, one per frame, so that they do not block scrolling. */
  #drawPosters(entries, seen) {
    const idle = this.waiting.length === 0;
    for (const entry of entries.filter((entry) => entry.isIntersecting)) {
      seen.unobserve(entry.target);
      this.waiting.push(this.cards.find((card) => card.root === entry.target));
    }
    const next = () => {
      const card = this.waiting[0];
      if (!card) return;
      if (card !== this.current) this.#draw(card, POSTER * this.#motion(card).seconds);
      this.waiting.shift();
      requestAnimationFrame(next);
    };
    if (idle) requestAnimationFrame(next);
  }

  #play(card) {
    if (this.current === card) return;
    if (this.current) this.#stop(this.current);
    this.current = card;
    const start = performance.now();
    const tick = (now) => {
      if (this.current !== card || this.dialog.open) return;
      const seconds = this.#motion(card).seconds;
      this.#draw(card, seconds > 0 ? Math.max(0, (now - start) / 1000) % seconds : 0);
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  #stop(card) {
    if (this.current === card) this.current = null;
  }

  #open(card) {
    this.#stop(card);
    this.dialog.showModal();
    this.player ??= new Player(this.dialog.querySelector(".stage"), this.parts);
    this.player.show([this.#motion(card)], card.packed.title);
    this.player.canvas.focus();
  }

  #filter() {
    const words = this.search.value.toLowerCase().split(/\s+/);
    let shown = 0;
    for (const card of this.cards) {
      card.root.hidden = !words.every((word) => card.text.includes(word));
      shown += !card.root.hidden;
    }
    this.count.textContent = `${shown} of ${this.cards.length}`;
    this.nothing.hidden = shown > 0;
    this.nothing.textContent = `No motion matches "${this.search.value.trim()}". Delete words to see more.`;
  }
}

readData().then((data) => new Gallery(data));
