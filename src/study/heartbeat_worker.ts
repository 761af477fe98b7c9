/**
 * Shows that the process which holds locks is alive, by touching their files, also while the main thread
 * computes. Posts the path of one that another process has taken over.
 */

/** A lock to keep, or to forget. */
export interface Heartbeat {
  readonly path: string;
  /** What the file holds while it is ours; null once it is given back. */
  readonly content: string | null;
  /** Milliseconds between two signs of life. */
  readonly interval: number;
}

const scope = self as unknown as {
  onmessage: (event: MessageEvent<Heartbeat>) => void;
  postMessage(lost: string): void;
};
const timers = new Map<string, ReturnType<typeof setInterval>>();

scope.onmessage = ({ data: { path, content, interval } }) => {
  if (content === null) return clearInterval(timers.get(path));
  const timer = setInterval(() => {
    try {
      if (Deno.readTextFileSync(path) === content) {
        const now = new Date();
        Deno.utimeSync(path, now, now);
        return;
      }
      clearInterval(timer);
      scope.postMessage(path);
    } catch {
      // The file is away for a moment while someone looks at it closely, or for good: the next beat tells.
    }
  }, interval);
  timers.set(path, timer);
};
