// Lets forge, which expects a native solc, use the solc of npm: answers --version and --standard-json as it would.
"use strict";
const fs = require("fs");
const path = require("path");
const modules = path.resolve(__dirname, "..", "..", "node_modules");
const solc = require(path.join(modules, "solc"));

const words = process.argv.slice(2);
if (words.includes("--version")) {
  // forge reads a semantic version with a platform; that of npm says Emscripten.clang.
  const version = solc.version().replace(".Emscripten.clang", ".Linux.g++");
  process.stdout.write(`solc, the solidity compiler commandline interface\nVersion: ${version}\n`);
} else if (words.includes("--standard-json")) {
  process.stdout.write(solc.compile(fs.readFileSync(0, "utf8")));
} else {
  process.stderr.write(`solc_shim knows --version and --standard-json, not ${words.join(" ")}\n`);
  process.exitCode = 2;
}
