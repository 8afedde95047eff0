// A person who stands and breathes, shown while there is no other motion.
"use strict";

const BREATH_SECONDS = 4;
const POSTURE = { // radians of joints about x, y and z: arms that hang; in the rest pose they are level
  13: [0, 0, -0.1], 14: [0, 0, 0.1],
  16: [0.1, 0, -1.15], 17: [0.1, 0, 1.15],
  18: [0, -0.3, 0], 19: [0, 0.3, 0],
};
const BREATH = { // radians by which a full breath turns joints: the chest rises and the shoulders with it
  6: [-0.02, 0, 0], 9: [-0.03, 0, 0], 12: [0.03, 0, 0],
  13: [0, 0, 0.05], 14: [0, 0, -0.05], 16: [0, 0, -0.04], 17: [0, 0, 0.04],
};

/** Motion of one breath on the spot, which can be repeated. */
function standing(parts) {
  const motion = new Motion();
  const frames = BREATH_SECONDS * FPS + 1;
  const joints = parts.joints.length;
  const { array } = parts.geometry.getAttribute("position");
  motion.frames = frames;
  motion.floor = array.reduce((lowest, value, index) => (index % 3 === 1 ? Math.min(lowest, value) : lowest), Infinity);
  motion.pelvis = Float32Array.from({ length: 3 * frames }, (_, index) => parts.joints[0][index % 3]);
  motion.rotations = new Int16Array(4 * joints * frames);
  const [turn, part] = [new THREE.Quaternion(), new THREE.Quaternion()];
  const axes = [new THREE.Vector3(1, 0, 0), new THREE.Vector3(0, 1, 0), new THREE.Vector3(0, 0, 1)];
  for (let frame = 0; frame < frames; frame++) {
    const share = (1 - Math.cos((2 * Math.PI * frame) / (frames - 1))) / 2;
    for (let joint = 0; joint < joints; joint++) {
      turn.identity();
      axes.forEach((axis, number) => {
        const angle = (POSTURE[joint]?.[number] ?? 0) + share * (BREATH[joint]?.[number] ?? 0);
        turn.premultiply(part.setFromAxisAngle(axis, angle));
      });
      turn.toArray().forEach((value, axis) => {
        motion.rotations[4 * (frame * joints + joint) + axis] = Math.round(32767 * value);
      });
    }
  }
  return motion;
}
