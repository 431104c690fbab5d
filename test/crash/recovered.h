// What a crash may leave, and whether it has: the question every crash test asks of an image.
#pragma once

#include <span>
#include <string>

#include "base/clock.h"
#include "io/sim_file_system.h"
#include "test/model/history.h"

namespace aionbd {

/// How a store is opened, and which states its promises allow it to hold.
struct Allowed {
  DatabaseOptions options;
  const Clock* clock = nullptr;
  std::span<const ModelState> states;  // in the order they happened
};

/// Index of the newest of the states that the database holds exactly; -1: none.
int64_t state_held(Database& database, std::span<const ModelState> states);

/// Opens the store in `image` and checks it: it opens at once, whole and without leftovers, holds
/// one of the allowed states, answers every question as the model does, takes writes and a
/// checkpoint, and holds exactly those after another restart. (I1 to I10 of docs/durability.md, as
/// far as one image can show them.) `seed` draws the writes. Returns "", or what is wrong.
std::string check_recovered(SimFileSystem& image, const Allowed& allowed, uint64_t seed);

}  // namespace aionbd
