/** Calls to any endpoint of the API. */

import { InvalidArgumentError } from "../errors.js";
import { changingOptions, type IdempotencyOptions } from "../settings/request-options.js";
import { encodeJson, type Body, type Call, type Query } from "../wire/call.js";
import type { Response } from "../wire/response.js";
import { SafeOutput } from "../wire/safe-output.js";
import type { Stream } from "../wire/stream.js";
import type { Transport } from "../wire/transport.js";

const METHOD = /^[A-Z]{1,20}$/;

/** A request to an endpoint that has no resource here. */
export interface EndpointRequest extends IdempotencyOptions {
  /** The query; arrays are sent as several pairs, and `undefined` is left out. */
  readonly query?: Query | undefined;
  /** A body of JSON: any value. */
  readonly json?: unknown;
  /** Another body: text, bytes or a form, with a Content-Type in `headers`; an object or array is sent as JSON. */
  readonly body?: Body | object | null | undefined;
}

/**
 * The methods of a client for endpoints that have no resource here.
 *
 * They return a successful response, and throw an APIStatusError for any other. A POST or PATCH is retried only with an
 * `idempotencyKey`, or if it had no effect: it could be performed twice.
 */
export abstract class Requests extends SafeOutput {
  /** @internal */
  protected abstract get transport(): Transport;

  /** Send a request to *path*, below `baseUrl`. */
  async request(method: string, path: string, request: EndpointRequest = {}): Promise<Response> {
    return this.transport.send(callOf("request", method, path, request, "application/json"));
  }

  /** Send a GET request. */
  async get(path: string, request: EndpointRequest = {}): Promise<Response> {
    return this.request("GET", path, request);
  }

  /** Send a POST request. */
  async post(path: string, request: EndpointRequest = {}): Promise<Response> {
    return this.request("POST", path, request);
  }

  /** Send a PUT request. */
  async put(path: string, request: EndpointRequest = {}): Promise<Response> {
    return this.request("PUT", path, request);
  }

  /** Send a PATCH request. */
  async patch(path: string, request: EndpointRequest = {}): Promise<Response> {
    return this.request("PATCH", path, request);
  }

  /** Send a DELETE request. */
  async delete(path: string, request: EndpointRequest = {}): Promise<Response> {
    return this.request("DELETE", path, request);
  }

  /**
   * Send a request, and return its response before its body has arrived. Read it to its end, or close it.
   *
   * `timeout` is for the start of the response, and for the pauses in it.
   */
  async stream(method: string, path: string, request: EndpointRequest = {}): Promise<Stream> {
    return this.transport.open(callOf("stream", method, path, request, "*/*"));
  }
}

function callOf(name: string, method: string, path: string, request: EndpointRequest, accept: string): Call {
  const options = changingOptions(name, ["query", "json", "body"], request);
  const verb = String(method).toUpperCase();
  if (!METHOD.test(verb)) throw new InvalidArgumentError(`method ${JSON.stringify(method)} is not a method of HTTP.`);
  if (typeof path !== "string" || !/^\/[^\s#\\]*$/.test(path)) {
    throw new InvalidArgumentError(
      `path ${JSON.stringify(path)} has to start with a slash: requests go to baseUrl only.`,
    );
  }
  if (request.json !== undefined && request.body !== undefined) {
    throw new InvalidArgumentError("Both json and body are given; pass one of them.");
  }
  const [endpoint = "", ...rest] = path.split("?");
  const query = { ...queryIn(rest.join("?")), ...request.query };
  return { method: verb, path: endpoint, query, options, accept, isDeduplicated: false, ...bodyOf(request) };
}

function bodyOf({ json, body }: EndpointRequest): Pick<Call, "body" | "contentType"> {
  if (json !== undefined) return { body: encodeJson("json", json) };
  if (body === undefined || body === null) return {};
  const isPlain = Array.isArray(body) || Object.getPrototypeOf(body) === Object.prototype;
  return isPlain ? { body: encodeJson("body", body) } : { body: body as Body, contentType: null };
}

function queryIn(text: string): Query {
  const query: Record<string, string[]> = {};
  for (const [name, value] of new URLSearchParams(text)) (query[name] ??= []).push(value);
  return query;
}
