/**
 * Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391): where in an image a label's logit comes from.
 *
 * With A the last feature map, [h, w] a channel, and y the logit of the label:
 *
 *     αₖ = mean over positions of ∂y/∂Aₖ,   heat = relu( Σₖ αₖ Aₖ ).
 */
import { backward, noGrad } from "./autograd.ts";
import type { Picture } from "./data/decode/picture.ts";
import type { ModelState } from "./nn/model_state.ts";
import type { Classifier } from "./methods/supervised.ts";
import { mul } from "./ops/binary.ts";
import { globalAvgPool } from "./ops/pool.ts";
import { sum } from "./ops/reduce.ts";
import type { Tensor } from "./tensor.ts";

/** A map of how much each place speaks for a label, not negative. */
export interface Heat {
  /** Columns. */
  readonly width: number;
  /** Rows. */
  readonly height: number;
  /** Row-major values. */
  readonly values: Float64Array;
}

/**
 * The heat of every label on one image.
 *
 * @param image [1, size, size, channels], normalised
 */
export async function gradCam(
  model: Classifier,
  state: ModelState,
  image: Tensor,
): Promise<Heat[]> {
  const { gpu } = image;
  const map = gpu.step(() => noGrad(() => model.encoder.map(image)));
  map.requiresGrad = true;
  const activations = await map.data() as Float32Array;
  const [, height = 0, width = 0, channels = 0] = map.shape;
  const labels = model.fc.weight.shape[1]!;
  const heats: Heat[] = [];
  for (let label = 0; label < labels; label++) {
    gpu.step(() => {
      const chosen = gpu.tensor(
        Float32Array.from({ length: labels }, (_, i) => Number(i === label)),
        [1, labels],
      );
      state.zeroGrad();
      backward(sum(mul(model.fc.forward(globalAvgPool(map)), chosen)));
    });
    const gradient = await map.grad!.data() as Float32Array;
    const weights = new Float64Array(channels);
    gradient.forEach((value, i) => weights[i % channels]! += value / (height * width));
    const values = new Float64Array(height * width);
    activations.forEach((value, i) =>
      values[Math.floor(i / channels)]! += weights[i % channels]! * value
    );
    heats.push({ width, height, values: values.map((value) => Math.max(0, value)) });
  }
  map.dispose();
  return heats;
}

/** Black, violet, red, orange, light yellow: lightness rises with heat, for every kind of eye. */
const colours = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]] as const;

/** How much of the image the strongest heat covers. */
const opacity = 0.6;

/**
 * An image under its heat, which is scaled to its own maximum, enlarged bilinearly, coloured, and the more
 * opaque the stronger it is. Without any heat the image is as it was.
 */
export function overlay({ width, height, channels, pixels }: Picture, heat: Heat): Picture {
  const largest = heat.values.reduce((a, b) => Math.max(a, b), 0);
  const result = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const value = sample(heat, (x + 0.5) / width, (y + 0.5) / height);
      const strength = largest > 0 ? value / largest : 0;
      const at = y * width + x;
      for (let c = 0; c < 3; c++) {
        const below = pixels[channels === 1 ? at : 3 * at + c]!;
        result[3 * at + c] = Math.round(
          below + opacity * strength * (colourOf(strength, c) - below),
        );
      }
    }
  }
  return { width, height, channels: 3, pixels: result };
}

/** Bilinear interpolation at (u, v) in 0…1; cells hold their value at their centre. */
function sample({ width, height, values }: Heat, u: number, v: number): number {
  const [x, y] = [clamp(u * width - 0.5, width), clamp(v * height - 0.5, height)];
  const [left, top] = [Math.floor(x), Math.floor(y)];
  const [right, bottom] = [Math.min(left + 1, width - 1), Math.min(top + 1, height - 1)];
  const row = (at: number) =>
    values[at * width + left]! * (1 - x + left) + values[at * width + right]! * (x - left);
  return row(top) * (1 - y + top) + row(bottom) * (y - top);
}

function clamp(position: number, size: number): number {
  return Math.min(Math.max(position, 0), size - 1);
}

function colourOf(strength: number, channel: number): number {
  const place = strength * (colours.length - 1);
  const below = Math.min(Math.floor(place), colours.length - 2);
  const [low, high] = [colours[below]![channel]!, colours[below + 1]![channel]!];
  return low + (high - low) * (place - below);
}
