// verify_store over given files: what tests use to pass a simulated disk.
#pragma once

#include "aionbd/store.h"
#include "io/file_system.h"

namespace aionbd {

/// As verify_store (aionbd/store.h).
Result<VerifyReport> verify_store_in(FileSystem* files, const std::string& dir,
                                     const StoreProgress& progress = {});

}  // namespace aionbd
