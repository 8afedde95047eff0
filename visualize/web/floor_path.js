// A path on the floor, drawn with a mouse, a finger or the arrow keys.
"use strict";

const PATH_WIDTH = 0.07; // metres
const PATH_HEIGHT = 0.012; // metres above the floor, so that the floor does not show through
const PATH_COLOR = 0x2f7fd6;
const SPACED = 0.04; // metres between the points while a path is drawn
const SMOOTHINGS = 4; // of a drawn path, against the trembling of a hand
const TOLERANCE = 0.01; // metres by which the simplified path may deviate from the smoothed one
const SHORTEST_PATH = 0.3; // metres
const KEY_STEP = 0.25; // metres per press of an arrow key
const FROM_ABOVE = { distance: 11, elevation: 0.95 }; // of the camera when a path is drawn: metres, radians
const FARTHEST = 18; // metres from the camera that can be drawn on

class FloorPath {
  /**
   * @param player Player on whose stage the path is drawn.
   * @param limits Limits of the server: points and metres.
   * @param drawn  Called with the points [[x, z], ...] of a new path, and whether it is complete.
   */
  constructor(player, limits, drawn) {
    Object.assign(this, { player, limits, drawn });
    this.canvas = player.canvas;
    this.points = [];
    this.drawing = false;
    this.ribbons = [];
    this.material = new THREE.MeshLambertMaterial({ color: PATH_COLOR, emissive: PATH_COLOR, emissiveIntensity: 0.3 });
    this.canvas.addEventListener("pointerdown", (event) => this.#press(event));
    this.canvas.addEventListener("keydown", (event) => this.#key(event), { capture: true }); // before the player's
  }

  /** Show a path, beside every body of the stage. */
  show(points) {
    this.points = points;
    const { scene, offsets } = this.player.stage;
    scene.remove(...this.ribbons);
    this.ribbons[0]?.geometry.dispose();
    const geometry = points.length > 1 ? ribbon(points) : null;
    this.ribbons = geometry ? offsets.map((x) => this.#ribbon(geometry, x)) : [];
    if (geometry) scene.add(...this.ribbons);
    this.player.dirty = true;
  }

  #ribbon(geometry, x) {
    const mesh = new THREE.Mesh(geometry, this.material);
    mesh.position.set(x, PATH_HEIGHT, 0);
    mesh.receiveShadow = true;
    return mesh;
  }

  /** Enter or leave the mode in which the pointer draws; the camera then looks from above. */
  mode(drawing) {
    if (this.drawing === drawing) return;
    this.drawing = drawing;
    this.player.controls.enabled = !drawing;
    this.canvas.classList.toggle("drawing", drawing);
    if (!drawing) return;
    this.player.play(false);
    const { camera, target } = this.player.stage;
    const { distance, elevation } = FROM_ABOVE;
    camera.position.set(0, distance * Math.sin(elevation), distance * Math.cos(elevation)).add(target);
    camera.lookAt(target);
    this.player.dirty = true;
  }

  #press(event) {
    if (!this.drawing || event.button !== 0 || this.stroke) return;
    const first = this.#floor(event);
    if (!first) return;
    const { offsets } = this.player.stage;
    const distance = (x) => Math.abs(x - first[0]);
    this.offset = offsets.reduce((best, x) => (distance(x) < distance(best) ? x : best));
    this.before = this.points;
    this.stroke = [[first[0] - this.offset, first[1]]];
    this.canvas.setPointerCapture(event.pointerId);
    const move = (moved) => moved.pointerId === event.pointerId && this.#extend(moved);
    const end = () => {
      this.canvas.removeEventListener("pointermove", move);
      this.#finish();
    };
    this.canvas.addEventListener("pointermove", move);
    this.canvas.addEventListener("lostpointercapture", end, { once: true });
  }

  #extend(event) {
    const point = this.#floor(event);
    if (!point || !this.stroke) return;
    point[0] -= this.offset;
    if (distanceOf(point, this.stroke.at(-1)) < SPACED || lengthOf(this.stroke) > this.limits.metres) return;
    this.stroke.push(point);
    this.show(this.stroke);
  }

  #finish() {
    const stroke = this.stroke;
    this.stroke = null;
    if (lengthOf(stroke) < SHORTEST_PATH) return this.show(this.before);
    let points = stroke;
    for (let pass = 0; pass < SMOOTHINGS; pass++) points = smooth(points);
    this.drawn(simplified(points, this.limits.points), true);
  }

  /** Arrow keys extend the path by one step to the left, the right, the back and the front. */
  #key(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!this.drawing || !step) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    const points = this.points.length ? this.points : [[0, 0]];
    if (points.length >= this.limits.points || lengthOf(points) > this.limits.metres) return;
    this.drawn([...points, points.at(-1).map((value, axis) => value + KEY_STEP * step[axis])], false);
  }

  /** Point [x, z] of the floor under a pointer; null above the horizon or far away. */
  #floor(event) {
    const { camera } = this.player.stage;
    camera.updateMatrixWorld(); // it may have moved since the last picture
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    const screen = [(2 * (event.clientX - left)) / width - 1, 1 - (2 * (event.clientY - top)) / height];
    const ray = new THREE.Vector3(...screen, 0.5).unproject(camera).sub(camera.position).normalize();
    const distance = ray.y < 0 ? -camera.position.y / ray.y : Infinity;
    if (distance > FARTHEST) return null;
    return [camera.position.x + distance * ray.x, camera.position.z + distance * ray.z];
  }
}

// --- Geometry of paths

function distanceOf(first, second) {
  return Math.hypot(first[0] - second[0], first[1] - second[1]);
}

function lengthOf(points) {
  return points.slice(1).reduce((length, point, index) => length + distanceOf(points[index], point), 0);
}

/** Average neighbouring points; the ends stay. */
function smooth(points) {
  const mean = (axis, index) => (points[index - 1][axis] + 2 * points[index][axis] + points[index + 1][axis]) / 4;
  return points.map((point, index) =>
    index > 0 && index < points.length - 1 ? [mean(0, index), mean(1, index)] : point,
  );
}

/** Leave out points that lie near the line between their neighbours (Ramer-Douglas-Peucker), in whole millimetres. */
function simplified(points, limit) {
  let kept;
  for (let tolerance = TOLERANCE; !kept || kept.length > limit; tolerance *= 1.5) kept = withoutNear(points, tolerance);
  return kept.map((point) => point.map((value) => Math.round(1000 * value) / 1000));
}

function withoutNear(points, tolerance) {
  const [first, last] = [points[0], points.at(-1)];
  const along = [last[0] - first[0], last[1] - first[1]];
  const square = along[0] ** 2 + along[1] ** 2;
  const deviation = (point) => {
    const offset = [point[0] - first[0], point[1] - first[1]];
    const share = square ? Math.min(Math.max((offset[0] * along[0] + offset[1] * along[1]) / square, 0), 1) : 0;
    return Math.hypot(offset[0] - share * along[0], offset[1] - share * along[1]);
  };
  const deviations = points.map(deviation);
  const largest = Math.max(...deviations);
  if (largest <= tolerance) return [first, last];
  const middle = deviations.indexOf(largest);
  const before = withoutNear(points.slice(0, middle + 1), tolerance);
  return [...before.slice(0, -1), ...withoutNear(points.slice(middle), tolerance)];
}

/** Flat strip along a path, with an arrow head at its end. */
function ribbon(points) {
  const positions = [];
  const add = (point, side, width) => positions.push(point[0] + side[0] * width, 0, point[1] + side[1] * width);
  let side;
  points.forEach((point, index) => {
    const [before, after] = [points[Math.max(0, index - 1)], points[Math.min(points.length - 1, index + 1)]];
    const length = distanceOf(before, after) || 1;
    side = [(after[1] - before[1]) / length, (before[0] - after[0]) / length]; // to the left
    add(point, side, PATH_WIDTH / 2);
    add(point, side, -PATH_WIDTH / 2);
  });
  const end = points.at(-1);
  const tip = [end[0] - 0.2 * side[1], end[1] + 0.2 * side[0]];
  add(end, side, 0.13);
  add(end, side, -0.13);
  add(tip, side, 0);
  const indices = [];
  for (let row = 0; row < 2 * (points.length - 1); row += 2) indices.push(row, row + 1, row + 2, row + 1, row + 3, row + 2);
  const head = 2 * points.length;
  indices.push(head, head + 1, head + 2);
  const geometry = new THREE.BufferGeometry();
  geometry.setAttribute("position", new THREE.BufferAttribute(new Float32Array(positions), 3));
  geometry.setIndex(indices);
  geometry.computeVertexNormals();
  return geometry;
}
