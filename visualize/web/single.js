// Page of one motion, or a few side by side.
"use strict";

readData().then((data) => {
  const motions = data.motions.map(Motion.from);
  new Player(document.querySelector("main"), new BodyParts(data.body), "h1").show(motions, data.title);
});
