// The document in the fragment of the address, which reproduces it: sentences, settings, path and poses.
"use strict";

const NUMBERS = ["seed", "variations", "temperature", "guidance"];

/** Fragment of an address, without the #. */
function fragmentOf({ sentences, settings, path, keyframes }) {
  const values = new URLSearchParams({ prompt: sentences.map(({ text }) => text).join(" | ") });
  const lengths = sentences.map(({ seconds }) => seconds ?? "");
  if (lengths.some(Boolean)) values.set("seconds", lengths.join());
  for (const name of NUMBERS) values.set(name, settings[name]);
  values.set("feet", settings.foot_lock ? 1 : 0);
  if (path.length) values.set("path", path.map((point) => point.join()).join(";"));
  if (keyframes.length) {
    const packed = keyframes.map(({ time, pose }) => ({ time, floor: pose.floor, ...packedPose(pose) }));
    values.set("poses", JSON.stringify(packed));
  }
  return String(values);
}

/** The parts of a document that a fragment holds, over those of `start`; unusable values are left out. */
function documentOf(fragment, start, limits) {
  const values = new URLSearchParams(fragment);
  const number = (text, low, high) => (text && Number(text) >= low && Number(text) <= high ? Number(text) : null);
  const lengths = (values.get("seconds") ?? "").split(",").map((text) => number(text, 0.1, limits.seconds));
  const texts = values.has("prompt") ? sentencesOf(values.get("prompt")) : null;
  const sentences = texts?.map((text, index) => ({ text, seconds: lengths[index] ?? null })) ?? start.sentences;
  const settings = { ...start.settings };
  const highest = { seed: 1e9, variations: limits.variations, temperature: 2, guidance: 10 };
  for (const name of NUMBERS) {
    const value = number(values.get(name), name === "variations" ? 1 : 0, highest[name]);
    if (value !== null) settings[name] = value;
  }
  if (values.has("feet")) settings.foot_lock = values.get("feet") !== "0";
  const points = (values.get("path") ?? "").split(";").map((point) => point.split(",").map(Number));
  const isPath = points.length > 1 && points.every((point) => point.length === 2 && point.every(Number.isFinite));
  return { ...start, sentences, settings, path: isPath ? points : [], keyframes: posesOf(values.get("poses")) };
}

function packedPose({ rotations, pelvis }) {
  const base64 = (array) => btoa(String.fromCharCode(...new Uint8Array(array.buffer)));
  return { rotations: base64(rotations), pelvis: base64(pelvis) };
}

function posesOf(text) {
  try {
    const keyframes = JSON.parse(text ?? "[]").map((packed) => ({ time: packed.time, pose: Motion.from(packed) }));
    const isPose = ({ frames, rotations, floor }) => frames === 1 && rotations.length === 88 && Number.isFinite(floor);
    return keyframes.every(({ time, pose }) => time >= 0 && isPose(pose)) ? keyframes : [];
  } catch {
    return []; // of another program, or cut
  }
}
