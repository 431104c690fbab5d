// Opens a Database over given files and clock: what tests use to pass a simulated disk.
#pragma once

#include <memory>

#include "aionbd/database.h"
#include "base/clock.h"
#include "io/file_system.h"
#include "io/process_memory.h"

namespace aionbd {

struct EngineEnvironment {
  FileSystem* files = nullptr;   // REQUIRES: set when the database is persistent
  const Clock* clock = nullptr;  // REQUIRES: set
  ProcessMemory* memory = &process_memory();
};

/// As Database::open, on the given environment, which must outlive the database and every handle to
/// its collections.
Result<std::unique_ptr<Database>> open_database(DatabaseOptions options,
                                                const EngineEnvironment& environment);

}  // namespace aionbd
