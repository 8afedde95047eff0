// What the editor edits: sentences with lengths, a path, pinned poses, and the motion shown; with undo.
"use strict";

const MAX_UNDO = 100; // states that are kept
const DRAFT_SECONDS = 4; // shown for a sentence whose length the generator has not decided yet
const SHORTEST = 0.3; // seconds, of a sentence or a selection

/**
 * A history of states. A state is never modified; every change makes a new one. Its parts:
 *   sentences  [{ text, seconds }], where seconds is null if the generator decides the length
 *   settings   { seed, variations, temperature, guidance, foot_lock }
 *   path       [[x, z], ...] in metres on the floor; empty without a path
 *   keyframes  [{ time, pose }], a pose as poseOf returns it
 *   shown      the motions on the stage, or null: { motions, title, lengths, token, names, errors, request, edited,
 *              stopped }, where request is the JSON of what was asked for
 */
class EditDocument {
  constructor(state, changed) {
    this.states = [state];
    this.position = 0;
    this.gesture = null;
    this.changed = changed;
  }

  get state() {
    return this.states[this.position];
  }

  get canUndo() {
    return this.position > 0;
  }

  get canRedo() {
    return this.position < this.states.length - 1;
  }

  /** Replace parts of the state. Successive changes of one gesture, such as a drag, are undone together. */
  change(parts, gesture = null) {
    const next = { ...this.state, ...parts };
    if (gesture !== null && gesture === this.gesture) {
      this.states[this.position] = next;
    } else {
      this.states.splice(this.position + 1, Infinity, next);
      this.states.splice(0, this.states.length - MAX_UNDO);
      this.position = this.states.length - 1;
    }
    this.gesture = gesture;
    this.changed(next);
  }

  /** Replace parts of the state and make it the first one. */
  start(parts) {
    this.states = [{ ...this.state, ...parts }];
    this.position = 0;
    this.gesture = null;
    this.changed(this.state);
  }

  /** End a gesture: the next change can be undone by itself. */
  settle() {
    this.gesture = null;
  }

  undo() {
    this.#go(-1);
  }

  redo() {
    this.#go(1);
  }

  #go(step) {
    if (!this.states[this.position + step]) return;
    this.position += step;
    this.gesture = null;
    this.changed(this.state);
  }
}

/** Start and length in seconds of each sentence on the timeline. */
function spansOf({ sentences, shown }) {
  let start = 0;
  return sentences.map(({ seconds }, index) => {
    const span = { start, seconds: seconds ?? shown?.lengths[index] ?? DRAFT_SECONDS };
    start += span.seconds;
    return span;
  });
}

/** Sentences of a text: as on the command line, a bar separates them, and so does a line break. */
function sentencesOf(text) {
  const parts = text.split(/[|\n]/).map((part) => part.trim());
  return parts.filter((part, index) => part || index === parts.length - 1);
}

/** Sentences before a time with the lengths that the timeline shows, so that the time stays within its sentence. */
function withFixedLengths(state, time) {
  return state.sentences.map((sentence, index) => {
    const { start, seconds } = spansOf(state)[index];
    return start + seconds <= time ? { ...sentence, seconds: Number(seconds.toFixed(2)) } : sentence;
  });
}

function rounded(seconds) {
  return Math.round(10 * seconds) / 10;
}

/** Sentences after the span from `start` to `end` was made anew with the sentence `text`. */
function withSentence(state, { start, end }, text) {
  const spans = spansOf(state).map((span, index) => ({ ...span, text: state.sentences[index].text }));
  const touched = spans.filter((span) => span.start < end && start < span.start + span.seconds);
  if (touched.every((span) => span.text === text)) return state.sentences;
  const cut = (low, high) =>
    spans
      .map((span) => ({
        text: span.text,
        seconds: rounded(Math.min(high, span.start + span.seconds) - Math.max(low, span.start)),
      }))
      .filter(({ seconds }) => seconds >= SHORTEST);
  return [...cut(0, start), { text, seconds: rounded(end - start) }, ...cut(end, Infinity)];
}

/** The pose of a motion at a frame: rotations (22 x 4, in 32767ths) and pelvis (3, metres) as in Motion. */
function poseOf(motion, frame) {
  const pose = new Motion();
  const width = motion.rotations.length / motion.frames;
  pose.rotations = motion.rotations.slice(width * frame, width * (frame + 1));
  pose.pelvis = motion.pelvis.slice(3 * frame, 3 * (frame + 1));
  pose.frames = 1;
  pose.floor = motion.floor;
  return pose;
}

/** The one frame of a pose as numbers of smplx_85: axis-angle rotations, pelvis, and zeros for face and shape. */
function smplx85Of(pose) {
  const numbers = new Array(85).fill(0);
  const rotation = new THREE.Quaternion();
  for (let joint = 0; joint < pose.rotations.length / 4; joint++) {
    rotation.fromArray(pose.rotations, 4 * joint).normalize();
    const sine = Math.hypot(rotation.x, rotation.y, rotation.z);
    const scale = sine > 1e-9 ? (2 * Math.atan2(sine, rotation.w)) / sine : 2;
    [rotation.x, rotation.y, rotation.z].forEach((value, axis) => (numbers[3 * joint + axis] = scale * value));
  }
  pose.pelvis.forEach((value, axis) => (numbers[72 + axis] = value));
  return numbers.map((value) => Math.round(1e5 * value) / 1e5);
}
