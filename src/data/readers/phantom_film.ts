/**
 * A procedural chest radiograph.
 *
 * A radiograph is a shadow, so the film adds up what a ray crosses (soft tissue, bone and fluid
 * brighten, air darkens) and a film curve turns the sum into gray. Structures are soft-edged analytic
 * shapes in patient coordinates: x right, y down, the image about [−1, 1]², the patient's left on the
 * right of the image. So a film shows the same anatomy at every size.
 *
 * The pixels come from pcg4d by + − × ÷ and √ alone, which IEEE 754 rounds alike everywhere: the
 * bytes are the same on every machine.
 */

import { pcg4d, Random, streamId } from "../../random.ts";
import type { Film } from "../dataset.ts";
import { repeatGray } from "../decode/picture.ts";

/** The share of patients with a large heart, and of films with each other finding. */
const PREVALENCE = 0.3;

// ------------------------------------------------------------------------------------- shapes

/** From 0 outside to 1 inside: a cubic ramp of half-width `w` where the signed distance `d` is 0. */
function edge(d: number, w: number): number {
  if (d <= -w) return 0;
  if (d >= w) return 1;
  const t = 0.5 + d / (2 * w);
  return t * t * (3 - 2 * t);
}

/** A round hump of a squared distance: 1 at 0, and 0 from 1 on. */
function hump(squared: number): number {
  const t = Math.max(0, 1 - squared);
  return t * t;
}

/** A thin curve at distance `d`; narrower than a pixel, it is drawn a pixel wide and fainter. */
function stroke(d: number, halfWidth: number, pixel: number): number {
  const w = Math.max(halfWidth, 0.6 * pixel);
  return hump((d * d) / (4 * w * w)) * (halfWidth / w);
}

function length(x: number, y: number): number {
  return Math.sqrt(x * x + y * y);
}

/** Distance from (x, y) to the polyline x0, y0, x1, y1, … */
function toPolyline(x: number, y: number, line: readonly number[]): number {
  let nearest = Infinity;
  for (let i = 0; i + 3 < line.length; i += 2) {
    const px = x - line[i]!;
    const py = y - line[i + 1]!;
    const dx = line[i + 2]! - line[i]!;
    const dy = line[i + 3]! - line[i + 1]!;
    const t = Math.min(1, Math.max(0, (px * dx + py * dy) / (dx * dx + dy * dy)));
    nearest = Math.min(nearest, length(px - t * dx, py - t * dy));
  }
  return nearest;
}

/** Value noise in [0, 1) over a periodic 32 × 32 lattice. */
function noise(lattice: Float64Array, x: number, y: number): number {
  const i = Math.floor(x);
  const j = Math.floor(y);
  const at = (a: number, b: number) => lattice[((b & 31) << 5) | (a & 31)]!;
  const u = edge(x - i - 0.5, 0.5);
  const v = edge(y - j - 0.5, 0.5);
  const top = at(i, j) + (at(i + 1, j) - at(i, j)) * u;
  const bottom = at(i, j + 1) + (at(i + 1, j + 1) - at(i, j + 1)) * u;
  return top + (bottom - top) * v;
}

// ------------------------------------------------------------------- what differs between films

/** The numbers of a patient's anatomy, which stays from film to film. */
export const anatomyOf = (seed: number, patient: number) =>
  new Random(seed, "phantom anatomy", patient);

/** The first of them: the build. */
export function drawBuild(r: Random) {
  const enlarged = r.uniform() < PREVALENCE;
  const female = r.uniform() < 0.5;
  return {
    enlarged,
    chest: r.uniform(0.68, 0.84), // half-width of the rib cage,
    widest: r.uniform(0.2, 0.45), // reached at this height
    apex: r.uniform(-0.84, -0.68),
    base: r.uniform(0.4, 0.52), // top of the right dome of the diaphragm at rest
    leftDrop: r.uniform(0.02, 0.1), // the left dome stands lower
    fat: r.uniform(0.05, 0.3), // tissue outside the rib cage
    heart: enlarged ? r.uniform(0.54, 0.64) : r.uniform(0.42, 0.5), // cardiothoracic ratio
    heartHeight: r.uniform(0.72, 0.92), // over its width
    aorta: r.uniform(0.06, 0.11), // radius of the arch
    mediastinum: r.uniform(0.12, 0.17),
    lean: r.uniform(-0.06, 0.06), // scoliosis
    ribPitch: r.uniform(0.155, 0.19),
    ribPhase: r.uniform(),
    ribDrop: r.uniform(0.14, 0.3),
    bone: r.uniform(0.7, 1.2),
    clavicle: r.uniform(-0.62, -0.5),
    clavicleSlope: r.uniform(0.1, 0.35),
    breast: female ? r.uniform(0.05, 0.14) : 0,
    breastHeight: r.uniform(0.2, 0.4),
    stomach: r.uniform(0.06, 0.18), // radius of the air in it
    vessels: r.uniform(0.7, 1.3),
  };
}
/** What {@linkcode drawBuild} draws. */
export type Build = ReturnType<typeof drawBuild>;

/** A patient: build, and a lattice of random numbers for the texture of the lungs. */
function drawAnatomy(r: Random) {
  return { ...drawBuild(r), lattice: Float64Array.from({ length: 1024 }, () => r.uniform()) };
}
type Anatomy = ReturnType<typeof drawAnatomy>;

/** How a film was taken. */
function drawExposure(seed: number, image: number) {
  const r = new Random(seed, "phantom exposure", image);
  return {
    shiftX: r.uniform(-0.12, 0.12),
    shiftY: r.uniform(-0.12, 0.12),
    tilt: r.uniform(-0.1, 0.1), // tangent of the rotation in the plane of the film
    zoom: r.uniform(0.8, 1), // patient units per image unit
    turn: r.uniform(-0.07, 0.07), // a turned patient: the front slides over the back
    breath: r.uniform(-0.08, 0.06), // inspiration pushes the diaphragm down
    level: r.uniform(0.5, 0.68),
    contrast: r.uniform(1.5, 2.6),
    grain: r.uniform(0.005, 0.02),
  };
}
type Exposure = ReturnType<typeof drawExposure>;

/** The findings of a film, each present or not on its own; the heart is the patient's. */
export function drawFindings(seed: number, image: number, a: Build) {
  const r = new Random(seed, "phantom findings", image);
  const side = () => (r.uniform() < 0.5 ? -1 : 1);
  const place = () => { // in a lung, clear of the heart
    const y = r.uniform(a.apex + 0.25, a.base - 0.1);
    return { x: side() * r.uniform(0.45, 0.85) * chestWidth(a, y), y };
  };
  const perhaps = <T>(draw: () => T): T | null => r.uniform() < PREVALENCE ? draw() : null;
  return {
    cardiomegaly: a.enlarged,
    consolidation: perhaps(() => ({
      ...place(),
      radius: r.uniform(0.18, 0.34),
      texture: r.uniform(0, 32),
    })),
    effusion: perhaps(() => ({ side: side(), height: r.uniform(-0.14, 0.25) })),
    nodule: perhaps(() => ({ ...place(), radius: r.uniform(0.06, 0.095) })),
    pneumothorax: perhaps(() => ({ side: side(), gap: r.uniform(0.08, 0.24) })),
    device: perhaps(() => drawDevice(r, side())),
  };
}
/** What {@linkcode drawFindings} draws. */
export type Findings = ReturnType<typeof drawFindings>;

/** A central line, a tracheal tube or a pacemaker: a curve and, for the last, a can at its start. */
function drawDevice(r: Random, side: number) {
  const vary = () => r.uniform(-0.05, 0.05);
  switch (r.integer(3)) {
    case 0: { // from the neck or the arm down the superior vena cava
      const entry = r.uniform() < 0.5 ? [0.3, -1.1] : [1, -0.5 + vary()];
      const line = [entry[0]! * side, entry[1]!, 0.24 * side, -0.62 + vary()];
      line.push(0.14 * side, -0.5 + vary(), -0.12, -0.35, -0.1 + vary(), vary());
      return { line, halfWidth: 0.014, can: false };
    }
    case 1: // down the trachea to just above its fork
      return { line: [vary(), -1.1, 0, -0.7, 0, -0.45 + vary()], halfWidth: 0.02, can: false };
    default: { // from below a clavicle through the veins to the right ventricle
      const [x, y] = [(0.5 + vary()) * side, -0.5 + vary()];
      const line = [x, y, x - 0.25 * side, y - 0.06, -0.06, -0.35, -0.12, 0.05 + vary()];
      line.push(0.2, 0.38 + vary());
      return { line, halfWidth: 0.014, can: true };
    }
  }
}

// ------------------------------------------------------------------------------------- anatomy
// s is the distance from the midline, d the depth inside the rib cage (negative outside of it).

/** Half-width of the rib cage at height y: half an ellipse under the apex, then straight down. */
function chestWidth(a: Build, y: number): number {
  const t = Math.min(0, (y - a.widest) / (a.widest - a.apex));
  return a.chest * Math.sqrt(Math.max(0, 1 - t * t));
}

/** Depth inside the rib cage, about the distance to its wall. */
function chestDepth(a: Anatomy, s: number, y: number): number {
  return a.chest * (1 - length(s / a.chest, Math.min(0, (y - a.widest) / (a.widest - a.apex))));
}

/** Height of the diaphragm: a dome a side, steep towards the costophrenic angle. */
function diaphragm(a: Anatomy, e: Exposure, s: number, left: boolean): number {
  const t = s - 0.5 * a.chest;
  return a.base + e.breath + (left ? a.leftDrop : 0) + (t > 0 ? 1.9 : 0.35) * t * t;
}

/** Soft tissue from neck and shoulders down; beside it the film is black. */
function body(a: Anatomy, s: number, y: number): number {
  const t = Math.max(0, s - 0.2);
  const shoulder = y + 0.98 - 0.15 * t - 0.35 * t * t + 0.6 * edge(0.26 - s, 0.16);
  const flank = a.chest + 0.12 + a.fat - 0.15 * edge(y - 0.1, 0.7) - s;
  const rounded = 0.06 + 0.94 * Math.sqrt(edge(shoulder, 0.12));
  return rounded * edge(shoulder + 0.1, 0.03) * edge(flank, 0.05);
}

/** Posterior ribs fall away from the spine, fainter anterior ones rise to the side. */
function ribs(a: Anatomy, d: number, across: number, y: number, pixel: number): number {
  const bar = (phase: number, halfWidth: number) => {
    const t = Math.abs(phase - Math.floor(phase) - 0.5) / halfWidth; // 1 at the cortex
    return edge(1 - t, Math.max(0.2, pixel / a.ribPitch)) * (0.55 + 0.45 * Math.min(1, t * t));
  };
  const within = edge(d + 0.02, 0.03);
  if (within === 0) return 0;
  const back = bar((y - a.ribDrop * across * across) / a.ribPitch + a.ribPhase, 0.2);
  const front = bar((y - 0.42 * (1 - across)) / a.ribPitch + a.ribPhase + 0.4, 0.17);
  const endOn = edge(0.05 - Math.abs(d), 0.04); // along the wall a ray passes through much bone
  return within *
    (back * (0.12 + 0.03 * across) + front * 0.08 * edge(across - 0.5, 0.2) + endOn * 0.05);
}

/** Vertebral bodies, one below the other, with fainter discs between. */
function spine(a: Anatomy, s: number, y: number): number {
  const phase = y / 0.14 + a.ribPhase;
  const t = phase - Math.floor(phase);
  return edge(0.1 - s, 0.02) * (0.1 + 0.2 * t * (1 - t));
}

/** Clavicles: slim S-shaped bars from the sternum up to the shoulders. */
function clavicles(a: Anatomy, s: number, y: number, pixel: number): number {
  const t = s - 0.1;
  const rise = a.clavicleSlope * t + 0.35 * t * (t - 0.4) * (0.9 - t);
  return 0.16 * stroke(y - a.clavicle + rise, 0.02, pixel) * edge(t, 0.03);
}

/** Scapulae: faint plates whose inner border crosses the outer lung. */
function scapulae(a: Anatomy, s: number, y: number): number {
  const border = a.chest - 0.12 + 0.25 * (y + 0.5) * (y + 0.5);
  return 0.07 * edge(s - border, 0.02) * edge(0.55 - Math.abs(y + 0.4), 0.1);
}

/** The heart on the diaphragm: an ellipse tipped to the patient's left, slimmer at the top. */
function heart(a: Anatomy, e: Exposure, x: number, y: number): number {
  const width = a.heart * a.chest * (1 - 0.5 * e.breath);
  const height = width * a.heartHeight;
  const cx = x - 0.3 * width;
  const cy = y - (a.base + e.breath + 0.06 - 0.85 * height);
  const [u, v] = [cx - 0.25 * cy, cy + 0.21 * cx];
  const slim = 1 - 0.25 * edge(-v / height, 1);
  return edge(1 - length(u / (width * slim), v / height), 0.1);
}

/** Great vessels in front of the spine, with the aortic arch as a knob on the left. */
function mediastinum(a: Anatomy, x: number, y: number): number {
  const width = a.mediastinum + 0.04 * edge(-0.5 - y, 0.2) + 0.1 * edge(y - 0.02, 0.25);
  const arch = length(x - a.mediastinum + 0.03, 0.8 * (y + 0.34)) / a.aorta;
  return Math.max(edge(width - Math.abs(x - 0.02), 0.045), edge(1 - arch, 0.3));
}

/** The dark air of the trachea in the midline, down to its fork. */
function trachea(x: number, y: number): number {
  return edge(0.045 - Math.abs(x), 0.025) * edge(-0.32 - y, 0.05);
}

/** Hila, and vessels that fan out of them and thin to the periphery. */
function vessels(a: Anatomy, s: number, y: number, left: boolean): number {
  const [dx, dy] = [s - 0.14, y + 0.02];
  const r = length(dx, dy);
  const angle = dy / (Math.abs(dx) + Math.abs(dy) + 1e-6); // grows with the angle: enough here
  const lung = left ? 16 : 0;
  const branch = noise(a.lattice, 5.5 * angle + 8 + lung, 5 * r + 3 * angle) - 0.5;
  const twigs = noise(a.lattice, 12 * s + lung, 12 * y);
  return a.vessels *
    (0.11 * hump(40 * branch * branch) * Math.max(0, 1 - 1.2 * r) + 0.06 * twigs +
      0.16 * hump(20 * r * r));
}

/** A breast: fuller and sharper below. */
function breast(a: Anatomy, x: number, y: number): number {
  const dy = y - a.breastHeight;
  const r = length(Math.abs(x) - 0.55 * a.chest, dy > 0 ? dy : 0.7 * dy) / 0.36;
  return a.breast * edge(1 - r, dy > 0 ? 0.08 : 0.5);
}

/** The bubble of air in the stomach, under the left dome. */
function stomach(a: Anatomy, x: number, below: number): number {
  return edge(1 - length(x - 0.42 * a.chest, 1.3 * (below - 0.04 - a.stomach)) / a.stomach, 0.2);
}

// ------------------------------------------------------------------------------------ findings

/** Consolidation: a fluffy patch of air spaces full of fluid, ragged at its margin. */
function consolidation(f: Findings["consolidation"], a: Anatomy, x: number, y: number): number {
  if (f === null) return 0;
  const cloud = 0.7 * noise(a.lattice, 7 * x + f.texture, 7 * y) +
    0.3 * noise(a.lattice, 16 * x, 16 * y + f.texture);
  return 0.8 * edge(1 - length(x - f.x, y - f.y) / f.radius + 0.9 * (cloud - 0.6), 0.6);
}

/** Effusion: fluid on the diaphragm blunts the angle and climbs the wall in a meniscus. */
function effusion(f: Findings["effusion"], side: number, above: number, across: number): number {
  if (f === null || f.side !== side) return 0;
  const meniscus = 0.25 * across * across * across * across;
  return 0.95 * edge(f.height + meniscus - above, 0.04);
}

/** Nodule: a small round shadow with a sharp margin. */
function nodule(f: Findings["nodule"], x: number, y: number): number {
  return f === null ? 0 : 0.32 * edge(f.radius - length(x - f.x, y - f.y), 0.03);
}

/** Pneumothorax: depth inside the collapsed lung; between its edge and the wall there is only air. */
function insideLung(f: Findings["pneumothorax"], side: number, d: number, y: number): number {
  if (f === null || f.side !== side) return Infinity;
  return d - f.gap * (0.5 + 0.7 * edge(-0.1 - y, 0.5));
}

/** Device: metal and plastic brighter than bone. */
function device(f: Findings["device"], x: number, y: number, pixel: number): number {
  if (f === null) return 0;
  const [dx, dy] = [Math.abs(x - f.line[0]!), Math.abs(y - f.line[1]!)];
  const can = f.can ? edge(0.09 - length(Math.max(0, dx - 0.03), Math.max(0, dy - 0.01)), 0.02) : 0;
  return 0.5 * can + 0.34 * stroke(toPolyline(x, y, f.line), f.halfWidth, pixel);
}

// ------------------------------------------------------------------------------------ the film

/** What the ray through (x, y) crosses: about 0.3 in the lungs, 1 in the middle, 0 beside the body. */
function density(a: Anatomy, e: Exposure, f: Findings, x: number, y: number, pixel: number) {
  const tissue = body(a, Math.abs(x), y);
  const axis = a.lean * (1 - y * y);
  const left = x > axis;
  const side = left ? 1 : -1;
  const s = Math.abs(x - axis);
  const front = x - e.turn;
  const sFront = Math.abs(front - axis);
  const across = Math.min(1, s / Math.max(1e-6, chestWidth(a, y)));
  const d = chestDepth(a, s, y);
  const above = diaphragm(a, e, s, left) - y;

  const vesselsBeside = mediastinum(a, 0.5 * (x + front), y);
  const middle = Math.max(heart(a, e, front, y), vesselsBeside);
  const underDome = edge(-above, 0.02 + 0.15 * vesselsBeside);
  const bones = (1 - 0.6 * edge(-above, 0.1)) * ribs(a, d, across, y, pixel) + spine(a, s, y) +
    scapulae(a, s, y) + clavicles(a, sFront, y, pixel);
  let sum = tissue * (0.62 + 0.25 * a.fat + 0.12 * underDome + 0.12 * middle + a.bone * bones);

  const field = edge(d - 0.02, 0.025) * edge(above, 0.02);
  if (field > 0) {
    const lung = field * (1 - middle);
    const inside = insideLung(f.pneumothorax, side, d, y);
    const inflated = edge(inside, 0.02);
    const pleura = inside < 1 ? 0.12 * stroke(inside, 0.016, pixel) : 0;
    const aerated = (1 - consolidation(f.consolidation, a, x, y)) *
      (1 - effusion(f.effusion, side, above, across));
    const air = aerated * (1.25 - 0.25 * inflated) *
      (lung * (0.62 + 0.38 * Math.sqrt(1 - across * across)) + 0.2 * (field - lung));
    sum -= 0.5 * air;
    sum += lung * (inflated * vessels(a, sFront, y, left) + pleura);
    sum += field * nodule(f.nodule, x, y);
  }
  return sum + breast(a, front, y) - 0.12 * trachea(front, y) -
    (left ? 0.12 * stomach(a, x, -above) : 0) + device(f.device, x, y, pixel);
}

/** Exposes a film: u8 [size, size, channels]. */
export function expose({ seed, patient, image }: Film, size: number, channels: 1 | 3): Uint8Array {
  const a = drawAnatomy(anatomyOf(seed, patient));
  const e = drawExposure(seed, image);
  const f = drawFindings(seed, image, a);
  const cos = e.zoom / Math.sqrt(1 + e.tilt * e.tilt);
  const sin = cos * e.tilt;
  const pixel = (2 * e.zoom) / size;
  const stream = streamId("phantom grain");
  const pixels = new Uint8Array(size * size);
  for (let row = 0, i = 0; row < size; row++) {
    const v = (2 * row + 1) / size - 1 - e.shiftY;
    for (let column = 0; column < size; column++, i++) {
      const u = (2 * column + 1) / size - 1 - e.shiftX;
      const sum = density(a, e, f, cos * u - sin * v, sin * u + cos * v, pixel);
      const exposure = e.contrast * (sum - e.level);
      const [n0, n1, n2, n3] = pcg4d(seed, stream, image, i); // four uniforms are nearly normal
      const grain = e.grain * 1.732 * ((n0 + n1 + n2 + n3) / 0x100000000 - 2);
      const gray = 0.5 + 0.5 * exposure / Math.sqrt(1 + exposure * exposure) + grain;
      pixels[i] = Math.round(255 * Math.max(0, Math.min(1, gray)));
    }
  }
  return channels === 1 ? pixels : repeatGray(pixels);
}
