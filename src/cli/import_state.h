// How far an import came: a small file beside the input, so that an interrupted import goes on
// where it stopped. Upserts are idempotent, hence a state that is a little behind only costs
// sending a few batches again.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "aionbd/status.h"
#include "io/file_system.h"

namespace aionbd {

/// What makes two input files the same one for `--resume`.
struct InputIdentity {
  std::string path;
  uint64_t bytes = 0;
  int64_t modified_ns = 0;  // of the file system's clock, whatever its epoch

  friend bool operator==(const InputIdentity&, const InputIdentity&) = default;
};

/// Errors: not_found, io_error.
Result<InputIdentity> identify_input(const std::string& path);

struct ImportState {
  InputIdentity input;
  std::string target;  // server and collection the rows went to
  /// Every row before this one was acknowledged or refused.
  uint64_t rows_done = 0;
  uint64_t rows_refused = 0;
};

/// Replaces the file at `path`, durably. Errors: io_error, storage_full.
Status save_import_state(FileSystem& files, const std::string& path, const ImportState& state);
/// Empty when there is no such file. Errors: corruption (it is something else), io_error.
Result<std::optional<ImportState>> load_import_state(FileSystem& files, const std::string& path);

/// Directory part of a path, "." when it has none.
std::string directory_of(const std::string& path);

}  // namespace aionbd
