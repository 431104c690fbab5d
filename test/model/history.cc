#include "test/model/history.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace aionbd {

namespace {

constexpr uint64_t kIdsPool = 24;  // small: replacing and deleting must be common
constexpr int64_t kGroups = 4;
const char* const kNames[] = {"alpha", "beta", "gamma"};

PointId random_id(Rng& rng, IdType type) {
  const uint64_t n = rng.below(kIdsPool);
  if (type == IdType::kU64) return n < 2 ? PointId(UINT64_MAX - n) : PointId(n);
  return PointId("id-" + std::string(n % 5, 'x') + std::to_string(n));
}

Point random_point(Rng& rng, const CollectionOptions& options) {
  Point out{random_id(rng, options.id_type), {}, {}};
  for (uint32_t i = 0; i < options.dimension; ++i) {
    // Few distinct values: equal distances must be common. Segments without any of the halves are
    // kept as bytes (row_format.h).
    const uint64_t n = rng.below(5 * 64);
    out.values.push_back(static_cast<float>(n % 5) - (n / 5 == 0 ? 1.5F : 2.0F));
  }
  if (rng.chance(0.8)) out.payload["group"] = static_cast<int64_t>(rng.below(kGroups));
  if (rng.chance(0.3)) out.payload["text"] = std::string(rng.below(40), 'p');
  return out;
}

}  // namespace

Operation Operation::random(Rng& rng, const ModelState& state) {
  Operation out;
  out.collection_ = kNames[rng.below(std::size(kNames))];
  const auto found = state.find(out.collection_);
  const uint64_t roll = rng.below(100);
  if (found == state.end() ? roll < 80 : roll < 2) {
    out.kind_ = Kind::kCreate;
    out.options_.dimension = 1 + static_cast<uint32_t>(rng.below(4));
    out.options_.id_type = rng.chance(0.3) ? IdType::kString : IdType::kU64;
    return out;
  }
  const CollectionOptions options = found == state.end()
                                        ? CollectionOptions{.dimension = 2, .metric = {}}
                                        : found->second->options;
  const uint64_t count = rng.chance(0.5) ? 1 : 1 + rng.below(8);
  out.group_ = static_cast<int64_t>(rng.below(kGroups));
  if (roll < 60) {
    out.kind_ = Kind::kUpsert;
    for (uint64_t i = 0; i < count; ++i) out.points_.push_back(random_point(rng, options));
    return out;
  }
  for (uint64_t i = 0; i < count; ++i) out.ids_.push_back(random_id(rng, options.id_type));
  if (roll < 76) {
    out.kind_ = Kind::kRemove;
  } else if (roll < 80) {
    out.kind_ = Kind::kRemoveMatching;
  } else if (roll < 86) {
    out.kind_ = Kind::kSetPayload;
  } else if (roll < 90) {
    out.kind_ = Kind::kDeleteKeys;
  } else if (roll < 93) {
    out.kind_ = Kind::kDrop;
  } else if (roll < 97) {
    out.kind_ = Kind::kCheckpoint;
  } else {
    out.kind_ = Kind::kOptimize;
  }
  return out;
}

std::vector<PointId> ids_of(uint64_t first, uint64_t count) {
  std::vector<PointId> out;
  for (uint64_t id = first; id < first + count; ++id) out.emplace_back(id);
  return out;
}

Operation Operation::create(std::string collection, CollectionOptions options) {
  Operation out(Kind::kCreate, std::move(collection));
  out.options_ = options;
  return out;
}
Operation Operation::drop(std::string collection) {
  return {Kind::kDrop, std::move(collection)};
}
Operation Operation::upsert(std::string collection, std::vector<Point> points) {
  Operation out(Kind::kUpsert, std::move(collection));
  out.points_ = std::move(points);
  return out;
}
Operation Operation::remove(std::string collection, std::vector<PointId> ids) {
  Operation out(Kind::kRemove, std::move(collection));
  out.ids_ = std::move(ids);
  return out;
}
Operation Operation::remove_group(std::string collection, int64_t group) {
  Operation out(Kind::kRemoveMatching, std::move(collection));
  out.group_ = group;
  return out;
}
Operation Operation::set_group(std::string collection, std::vector<PointId> ids, int64_t group) {
  Operation out(Kind::kSetPayload, std::move(collection));
  out.ids_ = std::move(ids);
  out.group_ = group;
  return out;
}
Operation Operation::checkpoint() {
  return {Kind::kCheckpoint, ""};
}
Operation Operation::optimize(std::string collection) {
  return {Kind::kOptimize, std::move(collection)};
}

Filter Operation::group_filter() const {
  Filter filter;
  filter.must.push_back({"group", EqualTo{group_}, nullptr});
  return filter;
}

namespace {

bool in_group(const ModelPoint& point, int64_t group) {
  const auto found = point.payload.find("group");
  return found != point.payload.end() && found->second == Value(group);
}

/// Whether set_payload and delete_payload_keys must refuse: one id is unknown.
bool any_unknown(const ModelCollection& collection, const std::vector<PointId>& ids) {
  return std::any_of(ids.begin(), ids.end(),
                     [&](const PointId& id) { return !collection.points.contains(id); });
}

Status unexpected(const Status& status, const char* what) {
  return internal_error(std::string(what) + " ended unexpectedly: " + status.to_string());
}

Status expect_count(const Result<uint64_t>& got, uint64_t want, const char* what) {
  if (!got) return got.error();
  if (*got == want) return {};
  return internal_error(std::string(what) + " counted " + std::to_string(*got) + ", want " +
                        std::to_string(want));
}

}  // namespace

Status Operation::apply(Database& database, const ModelState& before) const {
  const auto model = before.find(collection_);
  if (kind_ == Kind::kCheckpoint) return database.checkpoint();
  if (kind_ == Kind::kCreate) {
    const auto created = database.create_collection(collection_, options_);
    if (model == before.end()) return created.status();
    return !created && created.error().code() == Code::kAlreadyExists
               ? Status()
               : unexpected(created.status(), "create of an existing collection");
  }
  if (model == before.end()) {
    const auto missing = database.collection(collection_);
    return !missing && missing.error().code() == Code::kNotFound
               ? Status()
               : unexpected(missing.status(), "a collection that should not exist");
  }
  if (kind_ == Kind::kDrop) return database.drop_collection(collection_);
  ASSIGN_OR_RETURN(const std::shared_ptr<Collection> collection, database.collection(collection_));
  const ModelCollection& old = *model->second;
  const ModelState after_state = apply(before);
  const ModelCollection& after = *after_state.at(collection_);
  const uint64_t grown = after.points.size() - old.points.size();
  const uint64_t shrunk = old.points.size() - after.points.size();
  if (kind_ == Kind::kUpsert) {
    ASSIGN_OR_RETURN(const UpsertResult result, collection->upsert(points_));
    return expect_count(result.created, grown, "upsert");
  }
  if (kind_ == Kind::kRemove) return expect_count(collection->remove(ids_), shrunk, "remove");
  if (kind_ == Kind::kRemoveMatching) {
    return expect_count(collection->remove_matching(group_filter()), shrunk, "remove_matching");
  }
  if (kind_ == Kind::kOptimize) return collection->optimize();
  uint64_t changed = 0;
  for (const auto& [id, point] : after.points) changed += point == old.points.at(id) ? 0 : 1;
  const std::vector<std::string> keys = {"group"};
  const Result<uint64_t> result = kind_ == Kind::kSetPayload
                                      ? collection->set_payload(ids_, {{"group", group_}})
                                      : collection->delete_payload_keys(ids_, keys);
  if (!any_unknown(old, ids_)) return expect_count(result, changed, "payload change");
  if (!result && result.error().code() == Code::kNotFound) return {};
  return result ? unexpected(Status(), "payload change of an unknown id") : result.error();
}

ModelState Operation::apply(const ModelState& before) const {
  ModelState out = before;
  const auto found = out.find(collection_);
  if (kind_ == Kind::kCreate) {
    if (found == out.end()) {
      out[collection_] = std::make_shared<const ModelCollection>(ModelCollection{options_, {}});
    }
    return out;
  }
  if (found == out.end() || kind_ == Kind::kCheckpoint || kind_ == Kind::kOptimize) return out;
  if (kind_ == Kind::kDrop) {
    out.erase(found);
    return out;
  }
  ModelCollection changed = *found->second;
  switch (kind_) {
    case Kind::kUpsert:
      for (const Point& point : points_) {
        changed.points[point.id] = {point.values, point.payload};
      }
      break;
    case Kind::kRemove:
      for (const PointId& id : ids_) changed.points.erase(id);
      break;
    case Kind::kRemoveMatching:
      std::erase_if(changed.points,
                    [&](const auto& entry) { return in_group(entry.second, group_); });
      break;
    case Kind::kSetPayload:
    case Kind::kDeleteKeys:
      if (any_unknown(changed, ids_)) return out;
      for (const PointId& id : ids_) {
        Payload& payload = changed.points[id].payload;
        if (kind_ == Kind::kSetPayload) {
          payload["group"] = group_;
        } else {
          payload.erase("group");
        }
      }
      break;
    default: break;
  }
  found->second = std::make_shared<const ModelCollection>(std::move(changed));
  return out;
}

std::string Operation::describe() const {
  static const char* const kinds[] = {"create",          "drop",        "upsert",      "remove",
                                      "remove_matching", "set_payload", "delete_keys", "checkpoint",
                                      "optimize"};
  std::string out = std::string(kinds[static_cast<int>(kind_)]) + " " + collection_ + " ids:";
  for (const Point& point : points_) out += " " + point.id.to_string();
  for (const PointId& id : ids_) out += " " + id.to_string();
  return out + " group: " + std::to_string(group_);
}

// ---- comparing ----------------------------------------------------------------------------------

namespace {

std::string describe_status(const char* what, const Status& status) {
  return std::string(what) + ": " + status.to_string();
}

std::string points_difference(Collection& collection, const ModelCollection& model) {
  ListRequest request;
  request.limit = 2 * kIdsPool + model.points.size();
  request.include_payload = true;
  request.include_values = true;
  const Result<ListPage> page = collection.list(request);
  if (!page) return describe_status("list", page.error());
  if (page->total != model.points.size() || page->points.size() != model.points.size()) {
    return "list has " + std::to_string(page->points.size()) + " points, total " +
           std::to_string(page->total) + ", want " + std::to_string(model.points.size());
  }
  size_t i = 0;
  for (const auto& [id, point] : model.points) {
    const Point& got = page->points[i++];
    if (got.id != id) return "list has id " + got.id.to_string() + ", want " + id.to_string();
    if (got.values != point.values) return "values differ: id " + id.to_string();
    if (got.payload != point.payload) return "payload differs: id " + id.to_string();
  }
  const Result<uint64_t> count = collection.count(nullptr);
  if (!count || *count != model.points.size()) return "count differs";
  return "";
}

struct Expected {
  PointId id;
  float score;
};

/// The k best by brute force over the model, by the same scores a caller can compute.
std::vector<Expected> brute_force(const ModelCollection& model, Metric metric,
                                  const std::vector<float>& query, size_t limit,
                                  std::optional<int64_t> group) {
  std::vector<Expected> out;
  for (const auto& [id, point] : model.points) {
    if (group && !in_group(point, *group)) continue;
    const Result<float> score = score_between(query, point.values, metric);
    if (score) out.push_back({id, *score});  // refused only for a zero row under cosine
  }
  std::stable_sort(out.begin(), out.end(), [&](const Expected& a, const Expected& b) {
    return metric == Metric::kL2 ? a.score < b.score : a.score > b.score;
  });
  if (out.size() > limit) out.resize(limit);
  return out;
}

/// Approximate answers: live points that match, at their true scores, none twice.
std::string hits_untrue(const SearchResult& got, const ModelCollection& model,
                        const std::vector<float>& query, std::optional<int64_t> group) {
  std::set<PointId> seen;
  for (const Hit& hit : got.hits) {
    const auto found = model.points.find(hit.id);
    if (found == model.points.end() || !seen.insert(hit.id).second ||
        (group && !in_group(found->second, *group))) {
      return "an index found " + hit.id.to_string() + ", which it must not";
    }
    const Result<float> score = score_between(query, found->second.values, got.metric);
    if (!score || *score != hit.score) return "an index gave a score that is not true";
  }
  return "";
}

std::string hits_difference(const SearchResult& got, const std::vector<Expected>& want,
                            const char* what) {
  if (got.hits.size() != want.size()) {
    return std::string(what) + ": " + std::to_string(got.hits.size()) + " hits, want " +
           std::to_string(want.size());
  }
  for (size_t i = 0; i < want.size(); ++i) {
    if (got.hits[i].id != want[i].id || got.hits[i].score != want[i].score) {
      return std::string(what) + ": hit " + std::to_string(i) + " is " +
             got.hits[i].id.to_string() + " at " + std::to_string(got.hits[i].score) + ", want " +
             want[i].id.to_string() + " at " + std::to_string(want[i].score);
    }
  }
  return "";
}

std::string search_difference(Collection& collection, const ModelCollection& model, Rng& rng) {
  const auto metric = static_cast<Metric>(rng.below(kMetricsCount));
  const auto limit = static_cast<uint32_t>(1 + rng.below(kIdsPool));
  std::optional<int64_t> group;
  Filter filter;
  if (rng.chance(0.5)) {
    group = static_cast<int64_t>(rng.below(kGroups));
    filter.must.push_back({"group", EqualTo{*group}, nullptr});
  }
  std::vector<std::vector<float>> queries(5);
  SearchBatchRequest batch;
  for (auto& query : queries) {
    for (uint32_t i = 0; i < model.options.dimension; ++i) {
      query.push_back(static_cast<float>(rng.below(5)) - 2.0F);
    }
    query[0] += 0.5F;  // never a zero query
    batch.queries.emplace_back(query);
  }
  batch.common.mode = rng.chance(0.5) ? SearchMode::kExact : SearchMode::kAuto;
  batch.common.metric = metric;
  batch.common.limit = limit;
  if (group) batch.common.filter = &filter;
  const auto batch_results = collection.search_batch(batch);
  if (!batch_results) return describe_status("search_batch", batch_results.error());
  for (size_t q = 0; q < queries.size(); ++q) {
    const auto want = brute_force(model, metric, queries[q], limit, group);
    const auto check = [&](const SearchResult& got, const char* what) {
      return got.mode == SearchMode::kExact ? hits_difference(got, want, what)
                                            : hits_untrue(got, model, queries[q], group);
    };
    std::string found = check((*batch_results)[q], "search_batch");
    if (!found.empty()) return found;
    SearchRequest single = batch.common;
    single.query = queries[q];
    const auto result = collection.search(single);
    if (!result) return describe_status("search", result.error());
    found = check(*result, "search");
    if (!found.empty()) return found;
  }
  return "";
}

}  // namespace

std::string difference(Database& database, const ModelState& state, Rng& rng) {
  const std::vector<CollectionInfo> infos = database.list_collections();
  if (infos.size() != state.size()) {
    return "database has " + std::to_string(infos.size()) + " collections, want " +
           std::to_string(state.size());
  }
  for (const auto& [name, model] : state) {
    const auto collection = database.collection(name);
    if (!collection) return describe_status(name.c_str(), collection.error());
    const CollectionOptions options = (*collection)->info().options;
    if (options.dimension != model->options.dimension ||
        options.id_type != model->options.id_type) {
      return name + ": options differ";
    }
    std::string found = points_difference(**collection, *model);
    if (found.empty()) found = search_difference(**collection, *model, rng);
    if (!found.empty()) return name + ": " + found;
  }
  return "";
}

bool holds_exactly(Database& database, const ModelState& state) {
  const std::vector<CollectionInfo> infos = database.list_collections();
  if (infos.size() != state.size()) return false;
  for (const CollectionInfo& info : infos) {
    const auto model = state.find(info.name);
    if (model == state.end() || info.points_count != model->second->points.size() ||
        info.options.dimension != model->second->options.dimension ||
        info.options.id_type != model->second->options.id_type) {
      return false;
    }
    const auto collection = database.collection(info.name);
    if (!collection || !points_difference(**collection, *model->second).empty()) return false;
  }
  return true;
}

DatabaseOptions small_options(Rng& rng, const std::string& dir) {
  DatabaseOptions out;
  out.data_dir = dir;
  out.search_threads = 1;
  // Under a clock that stands still any shorter pause would be waited for in a loop.
  out.index_build_cooldown = std::chrono::hours(24 * 365 * 10);
  out.checkpoint_interval = 1 + static_cast<uint32_t>(rng.below(8));
  out.compact_after = 2 + static_cast<uint32_t>(rng.below(5));
  out.durability.sync_on_write = rng.chance(0.6);
  if (!out.durability.sync_on_write) out.durability.sync_every_n_writes = rng.below(5);
  return out;
}

}  // namespace aionbd
