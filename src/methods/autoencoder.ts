/**
 * A denoising autoencoder (Vincent et al. 2008, doi 10.1145/1390156.1390294).
 *
 * The encoder sees a corrupted view, and a decoder paints the clean one from the last feature map:
 *
 *     loss = mean ( g(f(corrupt(x))) − x )².
 */
import { UserError } from "../errors.ts";
import { Decoder, halvings } from "../nn/decoder.ts";
import { ResNet, type ResNetOptions } from "../nn/resnet.ts";
import { addNoise, maskPatches } from "../ops/dropout.ts";
import { mse } from "../ops/losses.ts";
import { globalAvgPool } from "../ops/pool.ts";
import type { Tensor } from "../tensor.ts";
import { Method, samplesInLine, type StepResult } from "./method.ts";

/** How the encoder's input is spoilt. */
export interface Corruption {
  /** Gaussian noise on every pixel, or patches set to the mean. */
  readonly kind: "noise" | "mask";
  /** Standard deviation of the noise (images have 1), or the part of the patches that are masked. */
  readonly strength: number;
  /** Seed of both. */
  readonly seed: number;
}

/** Side of a masked patch in pixels. */
const patchSize = 8;

/** An encoder with a decoder and the squared error. */
export class Autoencoder extends Method {
  /** One. */
  readonly viewsPerImage = 1;
  /** f, what is kept. */
  readonly encoder: ResNet;
  /** g, what is thrown away. */
  readonly decoder: Decoder;
  /** Of the pooled features. */
  readonly embeddingSize: number;
  readonly #corruption: Corruption;

  /**
   * Builds both; `ModelState` places them on a GPU.
   *
   * @throws {UserError} if images of this size do not come out at their size
   */
  constructor(encoder: ResNetOptions, imageSize: number, corruption: Corruption) {
    super();
    const unit = 2 ** halvings(encoder.stem);
    if (imageSize % unit !== 0) {
      throw new UserError(
        `--image-size ${imageSize}: an autoencoder with the ${encoder.stem} stem takes multiples of ${unit}`,
      );
    }
    this.encoder = new ResNet(encoder);
    this.decoder = new Decoder(this.encoder);
    this.embeddingSize = this.encoder.features;
    this.#corruption = corruption;
  }

  /**
   * The squared error of the decoded views.
   *
   * @param views [n, size, size, channels], also the target
   */
  loss(views: Tensor, step: number): StepResult {
    const map = this.encoder.map(this.corrupt(views, step));
    return { loss: mse(this.decoder.forward(map), views), embeddings: globalAvgPool(map) };
  }

  /** Of the three lines. */
  override readonly samplesCaption: string =
    "Images, what the encoder sees of them, and reconstructions.";

  /** Images, what the encoder sees of them, and what the decoder paints. */
  override samples(images: number, view: (images: readonly number[]) => Tensor): Tensor[] {
    const views = view(Array.from({ length: Math.min(samplesInLine, images) }, (_, i) => i));
    const corrupted = this.corrupt(views, 0);
    return [views, corrupted, this.decoder.forward(this.encoder.map(corrupted))];
  }

  /** What the encoder sees of the views of a step. */
  corrupt(views: Tensor, step: number): Tensor {
    const { kind, strength, seed } = this.#corruption;
    const draw = { seed, stream: "corrupt", index: step };
    return kind === "noise"
      ? addNoise(views, { ...draw, deviation: strength })
      : maskPatches(views, { ...draw, rate: strength, size: patchSize });
  }
}
