// Fuzz target: the parts of a vector index from a hostile disk. A real index, built once, is
// spoiled as the input says; if it still opens, walks, visits of lists and bounds must stay inside
// the parts (each has an allocation of its own) and answer with rows of the segment, each at most
// once.
//
// Input: one byte that chooses the index, one for the queries, then changes of some bytes each: the
// part, what to do, where, and with what. So the corpus outlives changes of the format.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/rng.h"
#include "distance/metric.h"
#include "index/vector_index.h"

namespace aionbd {
namespace {

constexpr uint32_t kRows = 90;  // enough to hold some out and measure with them
constexpr uint32_t kPartsCount = static_cast<uint32_t>(IndexPart::kIvfDismissed);

/// Small rows, the first ones alike. Thread safety: immutable.
class MadeRows final : public RowSource {
 public:
  explicit MadeRows(uint32_t dim) : dim_(dim), values_(size_t{kRows} * dim) {
    Rng rng(dim);
    for (float& value : values_) value = static_cast<float>(rng.uniform() * 2 - 1);
    for (size_t i = 0; i < 5 * size_t{dim}; ++i) values_[i] = 0.5F;
  }
  uint32_t rows_count() const override { return kRows; }
  uint32_t dimension() const override { return dim_; }
  Status read(uint32_t first, size_t n, float* out) const override {
    std::copy_n(values_.data() + size_t{first} * dim_, n * dim_, out);
    return {};
  }

 private:
  const uint32_t dim_;
  std::vector<float> values_;
};

struct Whole {
  uint32_t dimension = 0;
  std::map<IndexPart, std::string> parts;
};

const std::vector<Whole>& whole_indexes() {
  static const auto* const all = [] {
    auto* const out = std::make_unique<std::vector<Whole>>().release();
    ThreadPool pool(0);
    for (const uint32_t dim : {1U, 5U, 40U}) {
      for (const Metric metric : {Metric::kDot, Metric::kL2, Metric::kCosine}) {
        Whole whole;
        whole.dimension = dim;
        const auto built = build_index(MadeRows(dim), metric, 7, &pool, [] { return false; });
        CHECK_TRUE(built.has_value());
        const Status written = built->write([&](IndexPart part, Bytes bytes) -> Status {
          whole.parts[part] = std::string(as_text(bytes));
          return {};
        });
        CHECK_TRUE(written.ok());
        out->push_back(std::move(whole));
      }
    }
    return out;
  }();
  return *all;
}

/// Reads of the input; zeros behind its end. Thread safety: single owner.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  bool more() const { return at_ < size_; }
  template <typename T>
  T get() {
    T value{};
    const size_t n = std::min(sizeof(T), size_ - at_);
    if (n > 0) std::memcpy(&value, data_ + at_, n);
    at_ += n;
    return value;
  }

 private:
  const uint8_t* data_;
  size_t size_;
  size_t at_ = 0;
};

void spoil(Input& input, std::map<IndexPart, std::string>& parts) {
  constexpr size_t kPartBytesMax = size_t{64} << 10;
  const auto part = static_cast<IndexPart>(input.get<uint8_t>() % kPartsCount + 1);
  std::string& bytes = parts[part];
  const auto what = input.get<uint8_t>();
  const size_t at = bytes.empty() ? 0 : input.get<uint16_t>() % bytes.size();
  const auto put = [&](auto value) {
    const size_t n = std::min(sizeof(value), bytes.size() - at);
    std::memcpy(bytes.data() + at, &value, n);
  };
  switch (what % 8) {
    case 0: put(input.get<uint8_t>()); break;
    case 1: put(input.get<uint16_t>()); break;
    case 2: put(input.get<uint32_t>()); break;
    case 3: put(input.get<uint64_t>()); break;
    case 4: put(uint32_t{0x7FC00000}); break;  // not a number
    case 5: bytes.resize(at); break;
    case 6: bytes.resize(std::min(kPartBytesMax, bytes.size() + input.get<uint16_t>())); break;
    case 7: {
      // Many numbers alike: the same edge, step or distance everywhere.
      const auto value = input.get<uint32_t>();
      for (size_t i = at & ~size_t{3}; i + sizeof(value) <= bytes.size(); i += sizeof(value)) {
        std::memcpy(bytes.data() + i, &value, sizeof(value));
      }
      break;
    }
    default: break;
  }
}

/// Each part at an address of its own, aligned as in a mapped file, with nothing readable behind.
class Placed {
 public:
  explicit Placed(const std::map<IndexPart, std::string>& parts) {
    for (const auto& [part, bytes] : parts) {
      auto& place = places_[part];
      place.size = bytes.size();
      void* room = nullptr;
      CHECK_EQ(posix_memalign(&room, kAlignment, std::max<size_t>(1, bytes.size())), 0);
      place.room.reset(static_cast<char*>(room));
      if (place.size > 0) std::memcpy(place.room.get(), bytes.data(), place.size);
    }
  }
  Result<Bytes> read(IndexPart part) const {
    const auto found = places_.find(part);
    if (found == places_.end()) return corruption("no such part");
    return Bytes(reinterpret_cast<const std::byte*>(found->second.room.get()), found->second.size);
  }

 private:
  static constexpr size_t kAlignment = 64;
  struct Free {
    void operator()(char* room) const { std::free(room); }
  };
  struct Place {
    std::unique_ptr<char, Free> room;
    size_t size = 0;
  };
  std::map<IndexPart, Place> places_;
};

/// Found rows are rows of the segment, each at most once, and allowed.
void check_found(const GraphScratch& scratch) {
  std::vector<bool> met(kRows, false);
  for (const GraphCandidate& found : scratch.found()) {
    CHECK_LT(found.row, kRows);
    CHECK_TRUE(!met[found.row]);
    met[found.row] = true;
    CHECK_TRUE(scratch.allowed().words == nullptr || scratch.allowed().contains(found.row));
  }
}

void walk_all_ways(const VectorIndex& index, const VectorIndex::Query& query,
                   const std::vector<uint64_t>& allowed) {
  static GraphScratch scratch;
  std::vector<GraphPlan> plans = {index.plan_with_ef(3, 1), index.plan_with_ef(10, 64),
                                  index.plan_with_nprobe(1, 1), index.plan_with_nprobe(200, 7)};
  for (const uint32_t k : {1U, 10U, 150U}) {
    for (const double target : {0.3, 0.999}) {
      if (const auto plan = index.plan(k, target)) plans.push_back(*plan);
      if (const auto plan = index.plan_lists(k, target)) plans.push_back(*plan);
    }
  }
  for (const GraphPlan& plan : plans) {
    const AllowedRows some = {allowed.data(), false};
    for (const AllowedRows& rows : {AllowedRows(), some, AllowedRows{allowed.data(), true}}) {
      if (plan.nprobe > 0 && rows.words != nullptr) continue;  // lists are sifted afterwards
      scratch.allow(rows);
      query.walk(plan, &scratch);
      check_found(scratch);
    }
  }
}

void use(const VectorIndex& index, uint32_t dimension, uint64_t seed) {
  Rng rng(seed);
  std::vector<uint64_t> allowed((kRows + 63) / 64, 0);
  for (uint32_t row = 0; row < kRows; ++row) {
    if (rng.below(3) == 0) allowed[row / 64] |= uint64_t{1} << (row % 64);
  }
  std::vector<float> values(dimension);
  for (const float scale : {1.0F, 1e-20F, 1e14F, 1e30F}) {
    for (float& value : values) value = scale * static_cast<float>(rng.uniform() * 2 - 1);
    const VectorIndex::Query estimates(index, values, VectorIndex::Query::Use::kEstimates);
    if (estimates.usable()) walk_all_ways(index, estimates, allowed);
    const VectorIndex::Query bounds(index, values, VectorIndex::Query::Use::kBounds);
    if (!bounds.usable()) continue;
    std::vector<float> lowest(kRows);
    bounds.lower_bounds(0, kRows, kFarthest, lowest.data());
    bounds.lower_bounds(kRows - 3, 3, lowest[0], lowest.data());
    for (const float distance : {0.0F, -1.0F, 1.0F, 1e30F, kFarthest}) {
      (void)bounds.reach(distance);
      (void)bounds.likely_reach(distance);
    }
  }
}

}  // namespace
}  // namespace aionbd

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace aionbd;
  constexpr size_t kChangesMax = 16;
  Input input(data, size);
  const std::vector<Whole>& all = whole_indexes();
  const Whole& whole = all[input.get<uint8_t>() % all.size()];
  const auto seed = input.get<uint8_t>();
  std::map<IndexPart, std::string> parts = whole.parts;
  for (size_t i = 0; i < kChangesMax && input.more(); ++i) spoil(input, parts);
  const Placed placed(parts);
  const auto index =
      VectorIndex::open([&](IndexPart part) { return placed.read(part); }, kRows, whole.dimension);
  if (!index.has_value()) {
    CHECK_TRUE(index.error().code() == Code::kCorruption);
    return 0;
  }
  (void)(*index)->hot_bytes();
  (void)(*index)->codec_reason();
  use(**index, whole.dimension, seed);
  return 0;
}
