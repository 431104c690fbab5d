// Random operations, applied to the engine and to the simplest thing that could be right.
//
// The model is a map from collection name to a map from id to point. Its states are immutable
// values, so a history can keep every one of them: a crash test asks which of them a recovered
// database is.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "aionbd/aionbd.h"
#include "base/rng.h"

namespace aionbd {

struct ModelPoint {
  std::vector<float> values;
  Payload payload;
  friend bool operator==(const ModelPoint&, const ModelPoint&) = default;
};

struct ModelCollection {
  CollectionOptions options;
  std::map<PointId, ModelPoint> points;
};

/// Never changed once made; equal collections are mostly the same object.
using ModelState = std::map<std::string, std::shared_ptr<const ModelCollection>>;

/// The `count` number ids from `first` on.
std::vector<PointId> ids_of(uint64_t first, uint64_t count);

/// One random operation and how both sides do it.
class Operation {
 public:
  /// Draws one that makes sense in `state` most of the time.
  static Operation random(Rng& rng, const ModelState& state);

  // One that is given.
  static Operation create(std::string collection, CollectionOptions options);
  static Operation drop(std::string collection);
  static Operation upsert(std::string collection, std::vector<Point> points);
  static Operation remove(std::string collection, std::vector<PointId> ids);
  static Operation remove_group(std::string collection, int64_t group);
  static Operation set_group(std::string collection, std::vector<PointId> ids, int64_t group);
  static Operation checkpoint();
  static Operation optimize(std::string collection);

  /// Does it to the database; a Status only where the model says there must be none.
  /// Errors other than those the model expects come back as they are.
  Status apply(Database& database, const ModelState& before) const;
  ModelState apply(const ModelState& before) const;
  /// For a failing seed's report.
  std::string describe() const;

 private:
  enum class Kind {
    kCreate,
    kDrop,
    kUpsert,
    kRemove,
    kRemoveMatching,
    kSetPayload,
    kDeleteKeys,
    kCheckpoint,
    kOptimize
  };

  Operation() = default;
  Operation(Kind kind, std::string collection) : kind_(kind), collection_(std::move(collection)) {}
  Filter group_filter() const;

  Kind kind_ = Kind::kCheckpoint;
  std::string collection_;
  CollectionOptions options_;
  std::vector<Point> points_;
  std::vector<PointId> ids_;
  int64_t group_ = 0;
};

/// Everything a reader can see, compared: listing, counts, points, filtered counts, and searches
/// (single and batch, all metrics) against a brute force over the model. What an index answered
/// approximately must be live points at their true scores.
/// Returns an empty string, or the first difference.
std::string difference(Database& database, const ModelState& state, Rng& rng);

/// Whether listing, counts and points are those of `state`; cheaper than `difference`.
bool holds_exactly(Database& database, const ModelState& state);

/// Options that make everything happen soon: tiny intervals, few segments, random durability.
DatabaseOptions small_options(Rng& rng, const std::string& dir);

}  // namespace aionbd
