/** Base64 for URLs and JWTs (RFC 4648 §5), without padding. */

/** Return *bytes* encoded. */
export function base64url(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replace(/=+$/, "");
}
