// The files of a store as they lie on the disk, for those who look without opening it: verify,
// inspect, repair, backup. Nothing here writes, and there is one reader of each format: the one
// that recovery uses.
#pragma once

#include <string>
#include <vector>

#include "aionbd/status.h"
#include "io/file_system.h"
#include "storage/format.h"
#include "storage/log_reader.h"
#include "storage/manifest.h"
#include "storage/segment_file.h"

namespace aionbd {

/// The names in a data directory, sorted by what they are.
struct StoreListing {
  bool has_manifest = false;
  std::vector<Lsn> logs;  // first lsns, ascending (as their names are)
  std::vector<SegmentId> segments;
  std::vector<std::string> temps;
  std::vector<std::string> foreign;
};

/// Errors: not_found, io_error.
Result<StoreListing> list_store(FileSystem* files, const std::string& dir);

}  // namespace aionbd
