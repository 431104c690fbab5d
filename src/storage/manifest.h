// The root of a store: what lives, and from where the log counts. Layout: docs/format.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "aionbd/status.h"
#include "base/bytes.h"
#include "io/file_system.h"
#include "storage/format.h"

namespace aionbd {

struct Manifest {
  uint64_t store_id = 0;
  uint64_t number = 0;        // 1, 2, 3, ... per publish
  uint64_t replay_after = 0;  // lsn
  uint64_t durable_lsn = 0;
  std::vector<ManifestSegment> segments;  // ascending by id
  std::string catalog;
};

/// The bytes of a manifest file.
std::string encode_manifest(const Manifest& manifest);

/// Errors: corruption (damaged, inconsistent, or written by a newer version; names `path`).
Result<Manifest> decode_manifest(Bytes bytes, const std::string& path);

/// Reads `dir`/MANIFEST. Errors: not_found; corruption; io_error.
Result<Manifest> read_manifest(FileSystem* files, const std::string& dir);

/// How far writing a manifest came: decides what an error means.
enum class ManifestStep {
  kOldIsRoot,  // nothing happened to the old one
  kUnknown,    // the new one is in place but may not be durable: either may be found after a crash
  kNewIsRoot,  // durable
};

/// Replaces `dir`/MANIFEST in one atomic step: writes MANIFEST.tmp, syncs, renames, syncs `dir`.
/// REQUIRES: every file it names is synced, and so is `dir`.
Status write_manifest(FileSystem* files, const std::string& dir, const Manifest& manifest,
                      ManifestStep* step);

}  // namespace aionbd
