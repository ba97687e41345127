/** This release, as package.json says it, too. */
export const VERSION = "0.1.0";
