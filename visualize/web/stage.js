// Bodies on a floor in WebGL. Metres, y up; motions and mesh as packed by visualize/page.py.
"use strict";

const FPS = 30;
const SPACING = 1.4; // metres between people side by side
const AZIMUTH = 0.56; // radians from the direction in which the first frame faces
const ELEVATION = 0.19; // radians above the horizon
const LOOK_AT = 0.86; // metres above the floor
const DARK = window.matchMedia("(prefers-color-scheme: dark)");
const CALM = window.matchMedia("(prefers-reduced-motion: reduce)");
const COLORS = {
  light: { background: 0xd9dde3, tiles: ["#c9ced6", "#bac0c9"] },
  dark: { background: 0x1d2026, tiles: ["#383d47", "#2d323a"] },
};

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

/** Read the page's data: base64 of gzipped JSON, so that no text in it can close the element that holds it. */
async function readData() {
  const packed = new Blob([bytesOf(document.getElementById("data").textContent)]);
  return new Response(packed.stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

function joined(Type, first, second) {
  const both = new Type(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}

/** Rotations of 22 joints and position of the pelvis per frame; may grow while it is shown. */
class Motion {
  constructor(title, note) {
    this.title = title;
    this.note = note;
    this.floor = 0;
    this.frames = 0;
    this.rotations = new Int16Array(0); // frames x 22 x (x, y, z, w), in 32767ths
    this.pelvis = new Float32Array(0); // frames x 3, metres
  }

  static from(packed) {
    const motion = new Motion(packed.title, packed.note);
    motion.append(packed);
    return motion;
  }

  append(packed) {
    this.rotations = joined(Int16Array, this.rotations, new Int16Array(bytesOf(packed.rotations).buffer));
    this.pelvis = joined(Float32Array, this.pelvis, new Float32Array(bytesOf(packed.pelvis).buffer));
    this.frames = this.pelvis.length / 3;
    if (packed.floor !== undefined) this.floor = packed.floor;
  }

  get seconds() {
    return Math.max(0, this.frames - 1) / FPS;
  }

  /** Set `target` to the pelvis above the floor at a time in seconds; return the frames to interpolate. */
  place(time, target) {
    const position = Math.min(Math.max(time * FPS, 0), Math.max(0, this.frames - 1));
    const frame = Math.min(Math.floor(position), Math.max(0, this.frames - 2));
    const share = this.frames > 1 ? position - frame : 0;
    const next = this.frames > 1 ? frame + 1 : frame;
    const at = (axis) => this.pelvis[3 * frame + axis] * (1 - share) + this.pelvis[3 * next + axis] * share;
    target.set(at(0), at(1) - this.floor, at(2));
    return { frame, next, share };
  }
}

/** Data shared by all bodies: geometry, material, rest skeleton. */
class BodyParts {
  constructor(packed) {
    const floats = (name) => new Float32Array(bytesOf(packed[name]).buffer);
    const palette = packed.palette.map((rgb) => new THREE.Color().setRGB(...rgb, THREE.SRGBColorSpace).toArray());
    const colors = Float32Array.from([...bytesOf(packed.colors)].flatMap((index) => palette[index]));
    this.geometry = new THREE.BufferGeometry();
    const attribute = (name, values, width, normalized) =>
      this.geometry.setAttribute(name, new THREE.BufferAttribute(values, width, normalized));
    attribute("position", floats("vertices"), 3);
    attribute("color", colors, 3);
    attribute("skinIndex", bytesOf(packed.indices), 4);
    attribute("skinWeight", bytesOf(packed.weights), 4, true);
    this.geometry.setIndex(new THREE.BufferAttribute(new Uint32Array(bytesOf(packed.faces).buffer), 1));
    this.geometry.computeVertexNormals();
    this.material = new THREE.MeshStandardMaterial({ vertexColors: true, roughness: 0.55 });
    this.joints = packed.joints; // rest positions of 22 joints
    this.parents = packed.parents;
  }
}

class Body {
  constructor(parts) {
    this.bones = parts.joints.map((place, joint) => {
      const bone = new THREE.Bone();
      bone.position.fromArray(place);
      if (joint > 0) bone.position.sub(new THREE.Vector3().fromArray(parts.joints[parts.parents[joint]]));
      return bone;
    });
    this.bones.forEach((bone, joint) => joint > 0 && this.bones[parts.parents[joint]].add(bone));
    this.mesh = new THREE.SkinnedMesh(parts.geometry, parts.material);
    this.mesh.add(this.bones[0]);
    this.mesh.updateMatrixWorld(true);
    this.mesh.bind(new THREE.Skeleton(this.bones));
    this.mesh.frustumCulled = false; // it leaves the bounds of its rest pose
    this.mesh.castShadow = this.mesh.receiveShadow = true;
    this.start = new THREE.Quaternion();
    this.end = new THREE.Quaternion();
  }

  pose(motion, time) {
    this.mesh.visible = motion.frames > 0;
    if (!this.mesh.visible) return;
    const { frame, next, share } = motion.place(time, this.bones[0].position);
    this.bones.forEach((bone, joint) => {
      this.start.fromArray(motion.rotations, 4 * (frame * this.bones.length + joint)).normalize();
      this.end.fromArray(motion.rotations, 4 * (next * this.bones.length + joint)).normalize();
      bone.quaternion.slerpQuaternions(this.start, this.end, share);
    });
  }
}

/** Scene, camera and renderer of one canvas; shows one motion, or several side by side. */
class Stage {
  constructor(canvas, parts) {
    this.parts = parts;
    this.renderer = new THREE.WebGLRenderer({ canvas, antialias: true });
    this.renderer.shadowMap.enabled = true;
    this.scene = new THREE.Scene();
    this.scene.background = new THREE.Color();
    this.scene.fog = new THREE.Fog(0, 9, 24);
    this.camera = new THREE.PerspectiveCamera(30, 1, 0.1, 60);
    this.scene.add(new THREE.HemisphereLight(0xe8eef8, 0x8a8378, 1.7));
    this.sun = new THREE.DirectionalLight(0xfff2e0, 2.4);
    this.sun.castShadow = true;
    this.sun.shadow.mapSize.set(1024, 1024);
    this.sun.shadow.bias = -0.0005;
    this.sun.shadow.normalBias = 0.02;
    this.sun.shadow.radius = 4;
    this.scene.add(this.sun, this.sun.target, this.#makeFloor());
    this.bodies = [];
    this.motions = [];
    this.offsets = [0];
    this.target = new THREE.Vector3(0, LOOK_AT, 0);
    this.#paint();
    DARK.addEventListener("change", () => this.#paint());
  }

  /** Colour the background and the tiles of the floor for a light or a dark page. */
  #paint() {
    const { background, tiles } = DARK.matches ? COLORS.dark : COLORS.light;
    this.scene.background.set(background);
    this.scene.fog.color.set(background);
    const paint = this.tiles.getContext("2d");
    for (const [x, y] of [[0, 0], [1, 0], [0, 1], [1, 1]]) {
      paint.fillStyle = tiles[x === y ? 0 : 1];
      paint.fillRect(128 * x, 128 * y, 128, 128);
    }
    this.floor.material.map.needsUpdate = true;
  }

  #makeFloor() {
    this.tiles = document.createElement("canvas");
    this.tiles.width = this.tiles.height = 256;
    const texture = new THREE.CanvasTexture(this.tiles);
    texture.colorSpace = THREE.SRGBColorSpace;
    texture.wrapS = texture.wrapT = THREE.RepeatWrapping;
    texture.repeat.set(60, 60);
    texture.anisotropy = 2; // higher values are slow without a graphics card
    this.floor = new THREE.Mesh(
      new THREE.PlaneGeometry(60, 60),
      new THREE.MeshLambertMaterial({ map: texture }),
    );
    this.floor.rotation.x = -Math.PI / 2;
    this.floor.receiveShadow = true;
    return this.floor;
  }

  /** Show motions from the front; draw() sets the time. */
  show(motions) {
    while (this.bodies.length < motions.length) this.bodies.push(new Body(this.parts));
    this.motions = motions;
    const half = this.#width / 2;
    this.offsets = (motions.length ? motions : [null]).map((_, index) => index * SPACING - half); // metres along x
    this.bodies.forEach((body, index) => {
      if (index < motions.length) this.scene.add(body.mesh);
      else this.scene.remove(body.mesh);
      body.mesh.position.x = this.offsets[index] ?? 0;
    });
    const distance = this.#distance;
    const azimuth = motions.length > 1 ? AZIMUTH / 2 : AZIMUTH;
    this.centre(0, this.target);
    this.camera.position.set(
      this.target.x + distance * Math.sin(azimuth) * Math.cos(ELEVATION),
      LOOK_AT + distance * Math.sin(ELEVATION),
      this.target.z + distance * Math.cos(azimuth) * Math.cos(ELEVATION),
    );
    this.camera.lookAt(this.target);
  }

  /** Metres between the outer people. */
  get #width() {
    return Math.max(0, this.motions.length - 1) * SPACING;
  }

  /** Metres from which all people are seen. */
  get #distance() {
    return Math.max(4.4, (2.2 + this.#width) / (2 * Math.tan(Math.PI / 12) * Math.min(1.5, this.camera.aspect)));
  }

  /** Change the size of the picture; the camera moves so that it shows the same people. */
  resize(width, height, ratio) {
    const before = this.#distance;
    this.renderer.setPixelRatio(ratio);
    this.renderer.setSize(width, height, false);
    this.camera.aspect = width / height;
    this.camera.updateProjectionMatrix();
    this.camera.position.sub(this.target).multiplyScalar(this.#distance / before).add(this.target);
  }

  /** Set `target` to the point the camera looks at, at a time in seconds. */
  centre(time, target) {
    const place = new THREE.Vector3();
    target.set(0, LOOK_AT, 0);
    const present = this.motions.filter((motion) => motion.frames > 0);
    for (const motion of present) {
      motion.place(time, place);
      target.x += place.x / present.length;
      target.z += place.z / present.length;
    }
    return target;
  }

  /** Move the camera and its target so that it looks at `target`. */
  moveTo(target) {
    this.camera.position.add(target).sub(this.target);
    this.target.copy(target);
  }

  draw(time) {
    this.bodies.forEach((body, index) => index < this.motions.length && body.pose(this.motions[index], time));
    const middle = this.centre(time, new THREE.Vector3());
    this.floor.position.set(Math.round(middle.x), 0, Math.round(middle.z)); // by whole tiles, so that it seems endless
    const reach = 1.6 + (this.motions.length * SPACING) / 2;
    Object.assign(this.sun.shadow.camera, { left: -reach, right: reach, top: reach, bottom: -reach, near: 1, far: 16 });
    this.sun.shadow.camera.updateProjectionMatrix();
    this.sun.target.position.copy(middle);
    this.sun.position.copy(middle).add(new THREE.Vector3(-2.6, 6, 3.2));
    this.renderer.render(this.scene, this.camera);
  }
}
