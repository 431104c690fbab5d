// Storage that touches no file: everything succeeds, nothing outlives the process.
#pragma once

#include <memory>

#include "storage/storage.h"

namespace aionbd {

std::unique_ptr<Storage> make_memory_storage();

}  // namespace aionbd
