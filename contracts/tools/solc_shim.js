// The solc of npm with the command line of a native solc: --version, and --standard-json from stdin to stdout.
// forge expects a native solc; and npm's own solcjs ends its process before a pipe has taken all of its output.
"use strict";
const fs = require("fs");
const path = require("path");
const modules = path.resolve(__dirname, "..", "..", "node_modules");
const solc = require(path.join(modules, "solc"));

function readImport(name) {
  try {
    return { contents: fs.readFileSync(path.join(modules, name), "utf8") };
  } catch (error) {
    return { error: error.message };
  }
}

const words = process.argv.slice(2);
if (words.includes("--version")) {
  // forge reads a semantic version with a platform; that of npm says Emscripten.clang.
  const version = solc.version().replace(".Emscripten.clang", ".Linux.g++");
  process.stdout.write(`solc, the solidity compiler commandline interface\nVersion: ${version}\n`);
} else if (words.includes("--standard-json")) {
  process.stdout.write(solc.compile(fs.readFileSync(0, "utf8"), { import: readImport }));
} else {
  process.stderr.write(`solc_shim knows --version and --standard-json, not ${words.join(" ")}\n`);
  process.exitCode = 2;
}
