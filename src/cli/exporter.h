// A collection as NDJSON, page by page through points/scroll.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "aionbd/status.h"
#include "cli/client.h"
#include "cli/progress.h"
#include "io/file_system.h"

namespace aionbd {

struct ExportOptions {
  std::string collection;
  std::string path;  // "-": standard output
  ClientOptions client;
  uint32_t page_rows = 256;
  bool zstd = false;
  int zstd_level = 3;
};

struct ExportSummary {
  uint64_t rows = 0;
  uint64_t bytes = 0;  // written, after compression
  double seconds = 0;
};

/// Writes every point, ids ascending, one line each, in the server's own spelling, so that equal
/// collections give equal bytes. A file appears under its name only when it is whole and durable.
/// The pages are separate requests: points written meanwhile may or may not be in it.
/// Errors: what the server said; unavailable (it stayed away, or `*stop`); io_error, storage_full.
Result<ExportSummary> run_export(FileSystem& files, const ExportOptions& options,
                                 const std::atomic<bool>& stop, Progress& progress);

}  // namespace aionbd
