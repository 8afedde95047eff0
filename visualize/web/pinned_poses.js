// The pinned poses as translucent bodies.
"use strict";

class PinnedPoses {
  constructor(player, parts) {
    this.player = player;
    this.parts = { ...parts, material: parts.material.clone() };
    Object.assign(this.parts.material, { transparent: true, opacity: 0.35, depthWrite: false });
    this.bodies = [];
  }

  show(keyframes) {
    const { scene, offsets } = this.player.stage;
    while (this.bodies.length < keyframes.length) {
      const body = new Body(this.parts);
      body.mesh.castShadow = body.mesh.receiveShadow = false;
      this.bodies.push(body);
    }
    this.bodies.forEach((body, index) => {
      if (index >= keyframes.length) return scene.remove(body.mesh);
      body.pose(keyframes[index].pose, 0);
      body.mesh.position.x = offsets[0];
      scene.add(body.mesh);
    });
    this.player.dirty = true;
  }
}
