// A stage with controls: play, pause, time, speed, orbit and a camera that follows.
"use strict";

/** Create an element with properties (text is set as text, never as HTML) and children. */
function element(tag, properties = {}, ...children) {
  const created = Object.assign(document.createElement(tag), properties);
  created.append(...children);
  return created;
}

/** Make `parent` have `count` children. Elements stay, so that focus and drags survive a change. */
function fit(parent, count, make) {
  while (parent.children.length > count) parent.lastChild.remove();
  while (parent.children.length < count) parent.append(make(parent.children.length));
}

const IDLE_FPS = 15; // of a body that waits
const ABOVE = 1.95; // metres: height of the numbers of several bodies
const BADGE = 14; // pixels: half of the height of a number
const KEEP_SPACE = "button, a, select, textarea, input:not([type=range]), [role=slider]"; // they use the key themselves

class Player {
  /**
   * @param parent Element that receives the player.
   * @param parts  BodyParts.
   * @param tag    Tag of the title: h1 where the player is the page.
   */
  constructor(parent, parts, tag = "p") {
    const button = (className, textContent) => element("button", { type: "button", className, textContent });
    this.canvas = element("canvas", { tabIndex: 0, role: "img", ariaLabel: "motion" });
    this.title = element(tag, { className: "title", dir: "auto" });
    this.badges = element("div", { className: "badges" });
    this.button = button("play", "▶");
    this.button.ariaLabel = "play";
    this.slider = element("input", { type: "range", min: 0, max: 0, step: "any", value: 0, ariaLabel: "time" });
    this.clock = element("span", { className: "clock" });
    this.speed = element("select", { ariaLabel: "speed" });
    for (const speed of [0.1, 0.25, 0.5, 1, 2, 4]) {
      this.speed.append(element("option", { value: speed, textContent: `${speed}×`, selected: speed === 1 }));
    }
    this.follow = element("input", { type: "checkbox", checked: true });
    this.home = button("reset", "Reset view");
    this.root = element(
      "div",
      { className: "player" },
      element("div", { className: "view" }, this.canvas, this.title, this.badges),
      element(
        "div",
        { className: "controls" },
        this.button,
        this.slider,
        this.clock,
        this.speed,
        element("label", {}, this.follow, "Follow"),
        this.home,
      ),
    );
    parent.append(this.root);

    this.stage = new Stage(this.canvas, parts);
    this.controls = new THREE.OrbitControls(this.stage.camera, this.canvas);
    this.controls.target = this.stage.target;
    this.controls.maxPolarAngle = 1.56; // not below the floor
    this.controls.minDistance = 1;
    this.controls.maxDistance = 20;
    this.time = 0;
    this.playing = false;
    this.growing = false; // more frames will arrive: wait at the end instead of restarting
    this.dirty = true;
    this.span = 0; // seconds: least range of the slider
    this.idle = null; // motion that is repeated while there is no other
    this.drawn = () => {}; // called with the time that is shown
    this.last = performance.now();

    this.button.addEventListener("click", () => this.play(!this.playing));
    this.slider.addEventListener("input", () => this.seek(Number(this.slider.value)));
    this.home.addEventListener("click", () => this.#reset());
    this.follow.addEventListener("change", () => (this.dirty = true));
    this.controls.addEventListener("change", () => (this.dirty = true));
    this.canvas.addEventListener("keydown", (event) => this.#key(event));
    window.addEventListener("keydown", (event) => this.#space(event));
    DARK.addEventListener("change", () => (this.dirty = true));
    new ResizeObserver(() => this.#resize()).observe(this.canvas.parentElement);
    this.#resize();
    const tick = (now) => {
      this.#tick(now);
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  show(motions, title) {
    this.motions = motions;
    this.title.textContent = title;
    this.time = 0;
    this.#reset();
    this.play(!CALM.matches);
  }

  play(playing) {
    this.playing = playing;
    this.button.textContent = playing ? "❚❚" : "▶";
    this.button.ariaLabel = playing ? "pause" : "play";
    this.dirty = true;
  }

  seek(time) {
    this.time = Math.min(Math.max(time, 0), this.seconds);
    this.snap = true;
    this.dirty = true;
  }

  get seconds() {
    return Math.max(0, ...(this.motions ?? []).map((motion) => motion.seconds));
  }

  #reset() {
    this.stage.show(this.motions.length || !this.idle ? this.motions : [this.idle]);
    fit(this.badges, this.motions.length > 1 ? this.motions.length : 0, () => element("span"));
    [...this.badges.children].forEach((badge, index) => (badge.textContent = index + 1));
    this.snap = this.dirty = true;
  }

  #resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas.parentElement;
    if (width && height) this.stage.resize(width, height, Math.min(window.devicePixelRatio, 2));
    if (this.motions) this.stage.draw(this.time); // at once, because resizing clears the picture
  }

  #key(event) {
    const steps = { ArrowLeft: -1 / FPS, ArrowRight: 1 / FPS };
    if (!(event.key in steps)) return;
    this.seek(this.time + steps[event.key]);
    event.preventDefault();
  }

  /** The space bar plays and pauses, unless the focused element uses it. */
  #space(event) {
    if (event.key !== " " || event.target.closest?.(KEEP_SPACE) || !this.root.checkVisibility()) return;
    this.play(!this.playing);
    event.preventDefault();
  }

  #tick(now) {
    const elapsed = Math.min(Math.max(now - this.last, 0) / 1000, 0.1);
    this.last = now;
    if (!this.motions || !this.root.isConnected || (!this.playing && !this.dirty)) return;
    const waits = !this.motions.length && this.idle;
    if (waits && !this.dirty && now - this.drawnAt < 1000 / IDLE_FPS) return;
    this.drawnAt = now;
    if (waits && this.playing) this.idleTime = ((this.idleTime ?? 0) + elapsed) % this.idle.seconds;
    else if (this.playing) {
      this.time += elapsed * Number(this.speed.value);
      if (this.time >= this.seconds) {
        this.snap = !this.growing;
        this.time = this.growing ? this.seconds : 0;
      }
    }
    if (this.follow.checked) {
      const target = this.stage.centre(this.time, new THREE.Vector3());
      target.y = this.stage.target.y; // keep the height set by panning
      const share = this.snap ? 1 : 1 - Math.exp(-6 * elapsed);
      this.stage.moveTo(target.sub(this.stage.target).multiplyScalar(share).add(this.stage.target));
    }
    this.snap = this.dirty = false;
    this.slider.max = Math.max(this.seconds, this.span);
    this.slider.value = this.time;
    this.clock.textContent = `${this.time.toFixed(1)} / ${this.seconds.toFixed(1)} s`;
    this.stage.draw(waits ? this.idleTime ?? 0 : this.time);
    this.#placeBadges();
    this.drawn(this.time);
  }

  #placeBadges() {
    const place = new THREE.Vector3();
    const top = this.title.offsetTop + this.title.offsetHeight + 2 * BADGE; // below the title
    [...this.badges.children].forEach((badge, index) => {
      this.motions[index].place(this.time, place);
      place.setX(place.x + this.stage.offsets[index]).setY(ABOVE).project(this.stage.camera);
      badge.style.left = `${50 + 50 * place.x}%`;
      badge.style.top = `max(${50 - 50 * place.y}%, ${top}px)`;
      badge.hidden = !this.motions[index].frames || place.z > 1;
    });
  }
}
