/** The files of a study's folder, which cell.ts describes. */
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { UserError } from "../errors.ts";
import { readText, writeAtomically } from "../files.ts";
import type { Cell, Target } from "./cell.ts";
import { contradiction, relativeTo, type StudyConfig } from "./config.ts";
import { Locks } from "./locks.ts";

/** The folder of a study. */
export class StudyFolder {
  readonly path: string;
  readonly locks: Locks;

  /**
   * Opens the folder of a study, or makes it.
   *
   * @throws {UserError} if it holds another study, naming what differs
   */
  static async open(path: string, config: StudyConfig): Promise<StudyFolder> {
    const folder = new StudyFolder(path);
    await folder.#start(config).catch((error) => {
      folder.close();
      throw error;
    });
    return folder;
  }

  async #start(config: StudyConfig): Promise<void> {
    const { path } = this;
    await this.alone("study", () => {
      const file = join(path, "study.json");
      const next = relativeTo(path, config);
      const content = JSON.stringify(next, null, 2) + "\n";
      if (!existsSync(file)) return writeAtomically(file, content);
      const before = readText(file);
      if (before === content) return;
      const field = contradiction(JSON.parse(before), next);
      if (field === null) return writeAtomically(file, content);
      throw new UserError(
        `${file}: ${field} is not that of this study, whose cells are computed already; ` +
          "give another --out, or go back to it",
      );
    });
  }

  private constructor(path: string) {
    this.path = path;
    this.locks = new Locks(join(path, "locks"));
    for (const name of ["cells", "pretrain"]) mkdirSync(join(path, name), { recursive: true });
  }

  /** Runs `work` when no other process is at work of that name. */
  async alone(name: string, work: () => Promise<void> | void): Promise<void> {
    for (;;) {
      const lock = this.locks.take(name);
      if (lock === null) {
        await new Promise((resolve) => setTimeout(resolve, 100));
        continue;
      }
      try {
        return await work();
      } finally {
        lock.release();
      }
    }
  }

  /** Writes `target.json`, or checks that it says the same. */
  async writeTarget(target: Target): Promise<void> {
    await this.alone("study", () => {
      const file = join(this.path, "target.json");
      const content = JSON.stringify(target) + "\n";
      if (!existsSync(file)) return writeAtomically(file, content);
      if (readText(file) === content) return;
      throw new UserError(`${file}: the target's images or labels have changed since; --out anew`);
    });
  }

  /** To be called at the end: what holds locks keeps the process alive. */
  close(): void {
    this.locks.close();
  }

  /** Whether a cell is finished. */
  has(id: string): boolean {
    return existsSync(this.#cell(id));
  }

  /** A finished cell. */
  read(id: string): Cell {
    return JSON.parse(readText(this.#cell(id)));
  }

  /** Keeps a finished cell; one that is there already stays as it is. */
  write(id: string, cell: Cell): void {
    if (!this.has(id)) writeAtomically(this.#cell(id), JSON.stringify(cell) + "\n");
  }

  /** Keeps a picture for the report. */
  writePicture(name: string, png: Uint8Array): void {
    const folder = join(this.path, "pictures");
    mkdirSync(folder, { recursive: true });
    writeAtomically(join(folder, `${name}.png`), png);
  }

  #cell(id: string): string {
    return join(this.path, "cells", `${id}.json`);
  }

  /** The run folder of a pretraining. */
  pretraining(arm: string, seed: number): string {
    return join(this.path, "pretrain", `${arm}.s${seed}`);
  }

  /** The run folders of a cell of fine-tuning, one a rate, for as long as it is at work. */
  finetuning(id: string): string {
    return join(this.path, "finetune", id);
  }
}
