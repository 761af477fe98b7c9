/** PyTorch, and scikit-learn for K-means, on the CPU: all its threads. */
import { fileURLToPath } from "node:url";
import { findTorch, runPython } from "../../tests/support/python.ts";
import type { Peer } from "./peer.ts";

const script = fileURLToPath(new URL("torch_peer.py", import.meta.url));

/** The peer, or null where Python has no torch. */
export async function openTorch(): Promise<Peer | null> {
  const python = await findTorch();
  if (python === null) return null;
  return {
    name: "PyTorch",
    async seconds(work) {
      return Number(await runPython(python, [script, JSON.stringify(work)]));
    },
  };
}
