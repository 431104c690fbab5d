// The import itself: rows of a file into a collection of a server, over several connections.
//
// Workers take turns reading a batch under one lock (cheap), and spell, send and account for it
// outside (dear). A refused batch is cut in halves until the rows to blame stand alone; they are
// written down and the rest goes on. Rows are accounted for by position in the file: the state
// holds the position before which nothing is open any more.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>

#include "aionbd/status.h"
#include "aionbd/types.h"
#include "cli/client.h"
#include "cli/progress.h"
#include "cli/row_encoder.h"
#include "cli/row_source.h"
#include "io/file_system.h"

namespace aionbd {

struct ImportOptions {
  std::string path;
  std::optional<InputFormat> format;  // unset: detected
  std::string dataset = "train";      // of an HDF5 file
  std::string labels_path;            // IDX labels; empty: none
  std::string collection;
  ClientOptions client;
  size_t batch_rows = 256;
  size_t connections = 4;
  std::string id_field = "id";
  uint64_t start_id = 0;
  bool create = true;
  std::optional<Metric> metric;   // of a collection made here
  std::optional<IdType> id_type;  // of a collection made here
  bool resume = false;
  std::string state_path;         // empty: `path` + ".import-state"
  std::string refused_path;       // empty: `path` + ".refused.ndjson"
  std::optional<uint64_t> limit;  // only the first rows of the file
};

struct ImportSummary {
  uint64_t rows = 0;     // acknowledged in this run
  uint64_t created = 0;  // of them, new
  uint64_t updated = 0;
  uint64_t refused = 0;       // of the file, earlier runs included
  uint64_t rows_skipped = 0;  // done by an earlier run
  uint64_t bytes = 0;         // of request bodies
  uint64_t retries = 0;
  double seconds = 0;
  bool stopped = false;  // `*stop` became true before the end
  std::string refused_path, state_path;
};

/// Runs an import. It ends early when `*stop` becomes true: what is under way is finished, the
/// state saved. Errors: invalid_argument, not_found, permission_denied, ... (what the server said),
/// corruption (the file), unavailable (the server stayed away), io_error; the state is saved then,
/// too.
Result<ImportSummary> run_import(FileSystem& files, const ImportOptions& options,
                                 const std::atomic<bool>& stop, Progress& progress);

}  // namespace aionbd
