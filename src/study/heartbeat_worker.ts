/**
 * Shows that the process which holds a lock is alive, by touching the lock's file, also while the main
 * thread computes. Posts a message once another process has taken the lock over.
 */

/** The lock to keep. */
export interface Heartbeat {
  readonly path: string;
  /** What its file holds while it is ours. */
  readonly content: string;
  /** Milliseconds between two signs of life. */
  readonly interval: number;
}

const scope = self as unknown as {
  onmessage: (event: MessageEvent<Heartbeat>) => void;
  postMessage(message: "lost"): void;
};

scope.onmessage = ({ data: { path, content, interval } }) => {
  const timer = setInterval(() => {
    try {
      if (Deno.readTextFileSync(path) === content) {
        const now = new Date();
        Deno.utimeSync(path, now, now);
        return;
      }
      clearInterval(timer);
      scope.postMessage("lost");
    } catch {
      // The file is away for a moment while someone looks at it closely, or for good: the next beat tells.
    }
  }, interval);
};
