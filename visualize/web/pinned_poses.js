// The pinned poses as translucent bodies.
"use strict";

class PinnedPoses {
  constructor(player) {
    const { parts } = player.stage;
    this.player = player;
    this.material = parts.material.clone();
    Object.assign(this.material, { vertexColors: false, transparent: true, opacity: 0.45 });
    // A body that is in the pose hides it.
    Object.assign(this.material, { polygonOffset: true, polygonOffsetFactor: 4, polygonOffsetUnits: 16 });
    this.material.color.set(PATH_COLOR);
    this.parts = { ...parts, material: this.material };
    this.hull = this.material.clone(); // drawn first and unseen, so that no surface shows through another
    this.hull.colorWrite = false;
    this.bodies = [];
  }

  /** Show the poses of keyframes, beside the first motion. */
  show(keyframes) {
    const { scene, offsets } = this.player.stage;
    while (this.bodies.length < keyframes.length) this.bodies.push(this.#body());
    this.bodies.forEach((body, index) => {
      if (index >= keyframes.length) return scene.remove(body.mesh);
      body.pose(keyframes[index].pose, 0);
      body.mesh.position.x = offsets[0];
      scene.add(body.mesh);
    });
    this.player.dirty = true;
  }

  #body() {
    const body = new Body(this.parts);
    const hull = body.mesh.clone(false);
    hull.material = this.hull;
    body.mesh.add(hull);
    body.mesh.renderOrder = 1;
    for (const mesh of [body.mesh, hull]) mesh.castShadow = mesh.receiveShadow = false;
    return body;
  }
}
