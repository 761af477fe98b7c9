/**
 * MICLe: multi-instance contrastive learning (Azizi et al. 2021, arXiv 2101.05224, section 3.2).
 *
 * As SimCLR, but the two views of a positive pair show two different images of one patient, so that the
 * features keep what belongs to the patient and lose what belongs to the image: the pose, the
 * projection, the exposure. Of a patient with one image, both views show that one.
 */
import { UserError } from "../errors.ts";
import type { ResNetOptions } from "../nn/resnet.ts";
import type { Random } from "../random.ts";
import { SimCLR, type SimCLROptions } from "./simclr.ts";

/** SimCLR with pairs of images of one patient. */
export class MICLe extends SimCLR {
  /** The images of each image's patient, itself among them. */
  readonly #siblings: readonly (readonly number[])[];

  /**
   * As SimCLR's.
   *
   * @param patients the patient of each image; null is a patient of its own
   */
  constructor(
    encoder: ResNetOptions,
    options: SimCLROptions,
    patients: readonly (string | null)[],
  ) {
    super(encoder, options);
    const groups = Map.groupBy(patients.keys(), (image) => patients[image] ?? image);
    this.#siblings = patients.map((patient, image) => groups.get(patient ?? image)!);
  }

  /** The part of the images that have another image of their patient to be paired with. */
  override facts(): Readonly<Record<string, number>> {
    const paired = this.#siblings.filter(({ length }) => length > 1).length;
    return { pairedShare: paired / this.#siblings.length };
  }

  /**
   * A patient comes up at most once in a batch, where a second image of it would be a false negative.
   * Images are dealt to the steps in turn, a patient's one after another; what a patient has beyond one
   * image a step waits for another epoch.
   *
   * @throws {UserError} if the batches cannot be filled so
   */
  override order(images: number, batch: number, random: Random): readonly number[] {
    const steps = Math.floor(images / batch);
    const patients = random.shuffle([...new Set(this.#siblings)]);
    const dealt = patients.map((siblings) => random.shuffle([...siblings]).slice(0, steps));
    const eligible = dealt.flat();
    if (eligible.length < steps * batch) {
      throw new UserError(
        `micle: a patient may come up once in a batch, so ${patients.length} patients give ` +
          `${eligible.length} of the ${
            steps * batch
          } images of ${steps} steps; lower --batch ${batch}`,
      );
    }
    const chosen = new Set(random.shuffle(eligible).slice(0, steps * batch));
    const batches = Array.from({ length: steps }, (): number[] => []);
    let next = 0;
    for (const image of dealt.flat()) {
      if (chosen.has(image)) batches[next++ % steps]!.push(image);
    }
    return random.shuffle(batches).flat();
  }

  /** Each image, then an image drawn from the others of its patient. */
  override views(rows: readonly number[], random: Random): readonly number[] {
    const partners = rows.map((image) => {
      const others = this.#siblings[image]!.filter((sibling) => sibling !== image);
      return others.length > 0 ? others[random.integer(others.length)]! : image;
    });
    return [...rows, ...partners];
  }
}
