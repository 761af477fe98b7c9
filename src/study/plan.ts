/** Which cells a study has, what each waits for, and which of them a process is to compute. */
import { UserError } from "../errors.ts";
import { type Arm, cellId, type CellKey } from "./cell.ts";
import { armsOf, type StudyConfig } from "./config.ts";

/** A cell to compute. */
export interface PlannedCell {
  readonly id: string;
  readonly key: CellKey;
  /** Ids of the cells that it takes something from: its pretraining, the learning rate of the first seed. */
  readonly needs: readonly string[];
}

/**
 * All cells in an order in which each comes after those it needs: by seed, and with a seed first the
 * pretrainings and frozen features of all arms, which take less time, then fine-tuning.
 */
export function planStudy(config: StudyConfig): PlannedCell[] {
  const { fractions, imagenet, protocols, seeds } = config;
  const arms = armsOf(config).filter(({ width, method }) =>
    imagenet.weights !== null || !(method === "imagenet" || isScratchOfImagenet(config, width))
  );
  const plan = (key: CellKey, ...needs: CellKey[]): PlannedCell => ({
    id: cellId(key),
    key,
    needs: needs.map(cellId),
  });
  return seeds.flatMap((seed) => {
    const pretraining = (arm: Arm): CellKey[] =>
      arm.set === null ? [] : [{ kind: "pretrain", arm, seed }];
    const frozen = arms.flatMap((arm) => [
      ...pretraining(arm).map((key) => plan(key)),
      ...protocols.filter((kind) => kind !== "finetune").flatMap((kind) =>
        fractions.map(({ fraction }) => plan({ kind, arm, seed, fraction }, ...pretraining(arm)))
      ),
    ]);
    if (!protocols.includes("finetune")) return frozen;
    const finetuned = fractions.flatMap(({ fraction }) =>
      arms.filter(({ method }) => method !== "pixels").map((arm) => {
        const key = { kind: "finetune", arm, seed, fraction } as const;
        const chosen = seed === seeds[0] ? [] : [{ ...key, seed: seeds[0]! }];
        return plan(key, ...pretraining(arm), ...chosen);
      })
    );
    return [...frozen, ...finetuned];
  });
}

/** Whether an arm without pretraining is the one beside the weights of ImageNet. */
function isScratchOfImagenet({ encoder }: StudyConfig, width: number): boolean {
  return width === 64 && encoder.width !== 64;
}

/** Which cells a process is to compute. */
export interface Selection {
  /** Part of an id, or a pattern of a whole one in which `*` stands for any letters. */
  readonly only?: string | undefined;
  /** The i-th of n parts; all cells of one pretraining are in the same. */
  readonly shard?: { readonly index: number; readonly of: number } | undefined;
}

/**
 * The chosen cells, and those that they need.
 *
 * @throws {UserError} if `only` chooses none
 */
export function selectCells(
  cells: readonly PlannedCell[],
  { only, shard }: Selection,
): PlannedCell[] {
  const group = ({ key: { arm, seed } }: PlannedCell) => `${arm.name}.s${seed}`;
  const groups = [...new Set(cells.map(group))];
  const chosen = cells.filter((cell) =>
    (only === undefined || matches(cell.id, only)) &&
    (shard === undefined || groups.indexOf(group(cell)) % shard.of === shard.index - 1)
  );
  if (chosen.length === 0 && only !== undefined && shard === undefined) {
    throw new UserError(
      `--only ${only}: no cell of this name; there are ${cells.length} such as ${cells[0]?.id}`,
    );
  }
  const wanted = new Set<string>();
  const want = (cell: PlannedCell) => {
    wanted.add(cell.id);
    cells.filter(({ id }) => cell.needs.includes(id) && !wanted.has(id)).forEach(want);
  };
  chosen.forEach(want);
  return cells.filter(({ id }) => wanted.has(id));
}

function matches(id: string, pattern: string): boolean {
  if (!pattern.includes("*")) return id.includes(pattern);
  const parts = pattern.split("*").map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${parts.join(".*")}$`).test(id);
}
