import config from "../deno.json" with { type: "json" };

/** The version of wgrad. */
export const version: string = config.version;
