// See load_client.h.
#include "cli/load_client.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <set>

namespace aionbd {
namespace {

namespace dom = simdjson::dom;

/// Sequence numbers are spelled in two numbers below this.
constexpr uint64_t kDigit = uint64_t{1} << 20;
constexpr uint64_t kHitsMax = 10;
constexpr uint64_t kPageRows = 200;
/// What f32 arithmetic may make of a distance, relative to it and to the length of the query.
constexpr double kDistanceError = 1e-3;

std::string point_json(uint64_t id, uint64_t sequence, uint32_t dimension) {
  return fmt::format("\"values\":[{}],\"payload\":{{\"id\":{},\"sequence\":{}}}",
                     fmt::join(load_vector(id, sequence, dimension), ","), id, sequence);
}

/// The number of a member that is a whole number; nothing if it is something else or not there.
std::optional<uint64_t> number_in(const dom::element& object, std::string_view key) {
  uint64_t out = 0;
  if (object[key].get(out) != simdjson::SUCCESS) return std::nullopt;
  return out;
}

/// A stored point with values and payload. Errors: internal: it is none of ours.
Result<std::pair<uint64_t, LoadRow>> read_row(const dom::element& point, uint32_t dimension) {
  const auto id = number_in(point, "id");
  dom::element payload;
  dom::array values;
  if (!id || point["values"].get(values) != simdjson::SUCCESS ||
      point["payload"].get(payload) != simdjson::SUCCESS) {
    return internal_error("a stored point is not of our form: " + simdjson::minify(point));
  }
  const auto sequence = number_in(payload, "sequence");
  bool same =
      sequence && *sequence > 0 && number_in(payload, "id") == id && values.size() == dimension;
  if (same) {
    const std::vector<float> expected = load_vector(*id, *sequence, dimension);
    size_t i = 0;
    for (const dom::element value : values) {
      double number = 0;
      same = same && value.get(number) == simdjson::SUCCESS &&
             static_cast<float>(number) == expected[i++];
    }
  }
  if (!same) return internal_error("a stored point is torn or mixed: " + simdjson::minify(point));
  return std::pair(*id, LoadRow{*sequence, number_in(payload, "touched").value_or(0)});
}

std::string id_list(const std::vector<uint64_t>& ids) {
  return fmt::format("[{}]", fmt::join(ids, ","));
}

uint64_t microseconds_since(std::chrono::steady_clock::time_point start) {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(
                                   std::chrono::steady_clock::now() - start)
                                   .count());
}

LoadStep::Outcome outcome_of(const ServerResponse& answer) {
  using Outcome = LoadStep::Outcome;
  if (answer.status < 300) return Outcome::kDone;
  const bool busy = answer.status == 503 && answer.body.find("\"overloaded\"") != std::string::npos;
  if (answer.status == 408 || answer.status == 429 || answer.status == 507 || busy) {
    return Outcome::kRefused;
  }
  return answer.status >= 500 ? Outcome::kError : Outcome::kWrong;
}

}  // namespace

std::string_view load_op_name(LoadOp op) {
  switch (op) {
    case LoadOp::kUpsert: return "upsert";
    case LoadOp::kUpsertBatch: return "upsert_batch";
    case LoadOp::kDelete: return "delete";
    case LoadOp::kDeleteBatch: return "delete_batch";
    case LoadOp::kSetPayload: return "set_payload";
    case LoadOp::kGet: return "get";
    case LoadOp::kSearch: return "search";
  }
  return "";
}

std::vector<float> load_vector(uint64_t id, uint64_t sequence, uint32_t dimension) {
  std::vector<float> out(dimension);
  out[0] = static_cast<float>(id);
  out[1] = static_cast<float>(sequence % kDigit);
  out[2] = static_cast<float>(sequence / kDigit);
  Rng hash(id * 0x9E3779B97F4A7C15U + sequence);
  for (size_t i = 3; i < dimension; ++i) out[i] = static_cast<float>(1 + hash.below(kDigit));
  return out;
}

// ---- Requests ----------------------------------------------------------------------------------

LoadClient::LoadClient(const LoadOptions& options, uint64_t index, uint64_t seed, LoadBoard* board,
                       ClientOptions connection)
    : options_(options),
      base_(index * options.keys_each),
      rng_(seed + index * 7919),
      board_(board),
      connection_(std::move(connection)) {
  for (uint64_t i = 0; i < options.keys_each; ++i) known_[base_ + i] = LoadRow();
}

LoadStep LoadClient::step() {
  uint64_t total = 0;
  for (const uint32_t weight : options_.weights) total += weight;
  uint64_t roll = rng_.below(total);
  size_t op = 0;
  while (roll >= options_.weights[op]) roll -= options_.weights[op++];
  switch (static_cast<LoadOp>(op)) {
    case LoadOp::kUpsert: return write_one();
    case LoadOp::kUpsertBatch: return write_batch();
    case LoadOp::kDelete: return delete_one();
    case LoadOp::kDeleteBatch: return delete_batch();
    case LoadOp::kSetPayload: return set_payload();
    case LoadOp::kGet: return get();
    case LoadOp::kSearch: return search();
  }
  return {};
}

std::vector<uint64_t> LoadClient::any_ids() {
  const uint64_t most = std::min(options_.batch_max, options_.keys_each);
  const uint64_t count = most < 2 ? most : 2 + rng_.below(most - 1);
  std::set<uint64_t> ids;
  while (ids.size() < count) ids.insert(any_id());
  return {ids.begin(), ids.end()};
}

std::vector<uint64_t> LoadClient::some_present_ids() {
  std::vector<uint64_t> ids = any_ids();
  std::erase_if(ids, [this](uint64_t id) { return known_[id].sequence == 0; });
  return ids;
}

/// Any answer but a 404 that is not a right one is judged here, and its time taken.
Result<ServerResponse> LoadClient::ask(std::string_view method, const std::string& target,
                                       const std::string& body, LoadStep* step) {
  if (!client_) client_.emplace(connection_);
  const auto start = std::chrono::steady_clock::now();
  auto answer =
      client_->request(method, fmt::format("/collections/{}{}", options_.collection, target), body);
  step->us = microseconds_since(start);
  if (!answer.has_value()) {
    step->outcome = LoadStep::Outcome::kNoAnswer;
    step->problem = answer.error().message();
    return answer;
  }
  step->outcome = outcome_of(*answer);
  if (step->outcome != LoadStep::Outcome::kDone) {
    step->problem = fmt::format("{}: unexpected answer {}: {}", load_op_name(step->op),
                                answer->status, answer->body.substr(0, 300));
  }
  return answer;
}

LoadStep LoadClient::write(LoadOp op, std::string_view method, const std::string& target,
                           const std::string& body, Changes changes, bool may_be_missing) {
  using Outcome = LoadStep::Outcome;
  LoadStep step;
  step.op = op;
  // A deletion has a number of its own, so that what came before it is told from what comes after.
  const bool deletes = changes.front().second.sequence == 0;
  if (deletes) ++last_sequence_;
  const uint64_t number = deletes ? last_sequence_ : 0;
  for (const auto& [id, row] : changes) {
    board_->cell(id).begun.store(std::max(number, row.sequence));
  }
  const auto answer = ask(method, target, body, &step);
  if (step.outcome == Outcome::kNoAnswer || step.outcome == Outcome::kError) {
    in_doubt_ = std::move(changes);
    return step;
  }
  if (may_be_missing && answer.has_value() && answer->status == 404) {
    step.outcome = Outcome::kDone;
    step.problem.clear();
    const uint64_t id = changes.front().first;
    if (known_[id].sequence != 0) {
      step.outcome = Outcome::kWrong;
      step.problem = fmt::format("id {}: sequence {} was acknowledged, deleting it says 404", id,
                                 known_[id].sequence);
    }
    return step;
  }
  if (step.outcome != Outcome::kDone) return step;  // changed nothing, says the contract
  for (const auto& [id, row] : changes) {
    known_[id] = row;
    board_->cell(id).acknowledged.store(deletes ? 2 * number : 2 * row.sequence + 1);
  }
  return step;
}

LoadStep LoadClient::write_one() {
  const uint64_t id = any_id();
  const LoadRow row = next_row();
  return write(LoadOp::kUpsert, "PUT", fmt::format("/points/{}", id),
               "{" + point_json(id, row.sequence, options_.dimension) + "}", {{id, row}});
}

LoadStep LoadClient::write_batch() {
  Changes changes;
  std::string body;
  for (const uint64_t id : any_ids()) {
    const LoadRow row = next_row();
    changes.emplace_back(id, row);
    body += fmt::format("{}{{\"id\":{},{}}}", body.empty() ? "{\"points\":[" : ",", id,
                        point_json(id, row.sequence, options_.dimension));
  }
  return write(LoadOp::kUpsertBatch, "POST", "/points", body + "]}", std::move(changes));
}

LoadStep LoadClient::delete_one() {
  const uint64_t id = any_id();
  return write(LoadOp::kDelete, "DELETE", fmt::format("/points/{}", id), "", {{id, LoadRow()}},
               true);
}

LoadStep LoadClient::delete_batch() {
  const std::vector<uint64_t> ids = any_ids();
  Changes changes;
  for (const uint64_t id : ids) changes.emplace_back(id, LoadRow());
  return write(LoadOp::kDeleteBatch, "POST", "/points/delete", "{\"ids\":" + id_list(ids) + "}",
               std::move(changes));
}

LoadStep LoadClient::set_payload() {
  const std::vector<uint64_t> ids = some_present_ids();
  if (ids.empty()) return write_one();
  const uint64_t number = ++last_sequence_;
  Changes changes;
  for (const uint64_t id : ids) changes.emplace_back(id, LoadRow{known_[id].sequence, number});
  return write(
      LoadOp::kSetPayload, "POST", "/points/payload/set",
      fmt::format("{{\"points\":{},\"payload\":{{\"touched\":{}}}}}", id_list(ids), number),
      std::move(changes));
}

LoadStep LoadClient::get() {
  LoadStep step;
  step.op = LoadOp::kGet;
  const std::vector<uint64_t> ids = any_ids();
  const auto answer = ask("POST", "/points/get", "{\"ids\":" + id_list(ids) + "}", &step);
  if (step.outcome != LoadStep::Outcome::kDone) return step;
  const Status right = check_get(answer->body, ids);
  if (!right.ok()) {
    step.outcome = LoadStep::Outcome::kWrong;
    step.problem = right.message();
  }
  return step;
}

Status LoadClient::check_get(const std::string& body, const std::vector<uint64_t>& ids) const {
  dom::parser parser;
  dom::element answer;
  dom::array points;
  if (parser.parse(body).get(answer) != simdjson::SUCCESS ||
      answer["points"].get(points) != simdjson::SUCCESS) {
    return internal_error("an answer to get is not of its form");
  }
  LoadRows found;
  for (const dom::element point : points) {
    ASSIGN_OR_RETURN(const auto row, read_row(point, options_.dimension));
    found.insert(row);
  }
  for (const uint64_t id : ids) {
    const auto at = found.find(id);
    const LoadRow row = at == found.end() ? LoadRow() : at->second;
    const LoadRow& known = known_.at(id);
    if (row == known) continue;
    return internal_error(fmt::format(
        "get of id {}: sequence {} touched {} was acknowledged, sequence {} touched {} is there",
        id, known.sequence, known.touched, row.sequence, row.touched));
  }
  return {};
}

LoadStep LoadClient::search() {
  LoadStep step;
  step.op = LoadOp::kSearch;
  // Mostly for a row that is there, which must then come first if the answer is exact.
  std::optional<uint64_t> wanted;
  const uint64_t id = any_id();
  if (known_[id].sequence != 0) wanted = id;
  const std::vector<float> query =
      load_vector(id, wanted ? known_[id].sequence : ++last_sequence_, options_.dimension);
  const bool exact = rng_.chance(0.3);
  if (!exact) wanted.reset();
  const uint64_t limit = 1 + rng_.below(kHitsMax);
  std::vector<uint64_t> before(board_->ids());
  for (uint64_t i = 0; i < before.size(); ++i) before[i] = board_->cell(i).acknowledged.load();
  const auto answer =
      ask("POST", "/search/topk",
          fmt::format("{{\"query\":[{}],\"metric\":\"l2\",\"limit\":{},\"mode\":\"{}\","
                      "\"include_values\":true}}",
                      fmt::join(query, ","), limit, exact ? "exact" : "auto"),
          &step);
  if (step.outcome != LoadStep::Outcome::kDone) return step;
  const Status right = check_hits(answer->body, query, limit, before, wanted);
  if (!right.ok()) {
    step.outcome = LoadStep::Outcome::kWrong;
    step.problem = right.message();
  }
  return step;
}

/// Each hit is a row that was there at some moment of the search, with its true distance; they are
/// in order, none comes twice, and there are as many as there can be.
Status LoadClient::check_hits(const std::string& body, const std::vector<float>& query,
                              uint64_t limit, const std::vector<uint64_t>& before,
                              std::optional<uint64_t> wanted) {
  dom::parser parser;
  dom::element answer;
  dom::array hits;
  if (parser.parse(body).get(answer) != simdjson::SUCCESS ||
      answer["hits"].get(hits) != simdjson::SUCCESS) {
    return internal_error("an answer to search is not of its form");
  }
  double query_length = 0;
  for (const float value : query) query_length += static_cast<double>(value) * value;
  query_length = std::sqrt(query_length);
  std::set<uint64_t> seen;
  double last = 0;
  for (const dom::element hit : hits) {
    ASSIGN_OR_RETURN(const auto found, read_row(hit, options_.dimension));
    const auto& [id, row] = found;
    double value = 0;
    if (hit["value"].get(value) != simdjson::SUCCESS || id >= board_->ids()) {
      return internal_error("a hit is nobody's: " + simdjson::minify(hit));
    }
    double truth = 0;
    const std::vector<float> values = load_vector(id, row.sequence, options_.dimension);
    for (size_t i = 0; i < values.size(); ++i) {
      const double difference = static_cast<double>(values[i]) - query[i];
      truth += difference * difference;
    }
    truth = std::sqrt(truth);
    if (std::abs(value - truth) > kDistanceError * truth + kDistanceError * query_length / 10) {
      return internal_error(fmt::format("hit {}: distance {}, in truth {}", id, value, truth));
    }
    const bool ours = known_.contains(id);
    const uint64_t acknowledged = before[id] / 2;
    const bool was_there =
        row.sequence > acknowledged || (row.sequence == acknowledged && before[id] % 2 == 1);
    if (ours ? row != known_.at(id) : !was_there || row.sequence > board_->cell(id).begun.load()) {
      return internal_error(fmt::format(
          "hit {}: sequence {} touched {}, but {} was acknowledged ({}) before the search", id,
          row.sequence, row.touched, acknowledged, before[id] % 2 == 1 ? "upsert" : "delete"));
    }
    if (value < last) return internal_error("hits are out of order");
    if (!seen.insert(id).second) return internal_error(fmt::format("hit {} comes twice", id));
    if (wanted && seen.size() == 1 && id != *wanted) {
      return internal_error(fmt::format("the nearest of row {} is row {}", *wanted, id));
    }
    last = value;
    ++hits_checked_;
  }
  const uint64_t fewest = std::min(limit, present());
  if (seen.size() < fewest || seen.size() > limit) {
    return internal_error(fmt::format("{} hits: asked for {}, at least {} rows are there",
                                      seen.size(), limit, fewest));
  }
  return {};
}

// ---- What is stored ----------------------------------------------------------------------------

uint64_t LoadClient::present() const {
  return static_cast<uint64_t>(std::count_if(
      known_.begin(), known_.end(), [](const auto& entry) { return entry.second.sequence != 0; }));
}

Status LoadClient::verify(const LoadRows& stored) {
  std::vector<uint64_t> ids;
  for (const auto& entry : known_) ids.push_back(entry.first);
  return verify_some(ids, stored);
}

Status LoadClient::verify_some(const std::vector<uint64_t>& ids, const LoadRows& stored) {
  size_t changed = 0, unchanged = 0;
  const std::map<uint64_t, LoadRow> doubted(in_doubt_.begin(), in_doubt_.end());
  for (const uint64_t id : ids) {
    LoadRow& known = known_[id];
    const auto at = stored.find(id);
    const LoadRow found = at == stored.end() ? LoadRow() : at->second;
    const auto doubt = doubted.find(id);
    const bool may_change = doubt != doubted.end() && doubt->second != known;
    if (may_change && found == doubt->second) {
      ++changed;
      board_->cell(id).acknowledged.store(2 * last_sequence_);  // nothing older may be seen
      if (found.sequence != 0) board_->cell(id).acknowledged.store(2 * found.sequence + 1);
    } else if (found == known) {
      if (may_change) ++unchanged;
    } else {
      return internal_error(fmt::format(
          "id {}: acknowledged sequence {} touched {}, in doubt {}, found {} touched {} (0 = "
          "absent): {}",
          id, known.sequence, known.touched, may_change ? doubt->second.sequence : known.sequence,
          found.sequence, found.touched,
          found.sequence < known.sequence ? "an acknowledged write is lost" : "a phantom"));
    }
    known = found;
  }
  if (changed > 0 && unchanged > 0) {
    return internal_error(fmt::format("half a batch: {} of {} changes of one request are there",
                                      changed, changed + unchanged));
  }
  if (!in_doubt_.empty()) ++(changed > 0 ? doubts_applied_ : doubts_dropped_);
  in_doubt_.clear();
  return {};
}

Status LoadClient::settle() {
  if (in_doubt_.empty()) return {};
  std::vector<uint64_t> ids;
  for (const auto& change : in_doubt_) ids.push_back(change.first);
  LoadStep step;
  step.op = LoadOp::kGet;
  const auto answer = ask("POST", "/points/get", "{\"ids\":" + id_list(ids) + "}", &step);
  if (step.outcome != LoadStep::Outcome::kDone) return unavailable(step.problem);
  dom::parser parser;
  dom::element body;
  dom::array points;
  if (parser.parse(answer->body).get(body) != simdjson::SUCCESS ||
      body["points"].get(points) != simdjson::SUCCESS) {
    return internal_error("an answer to get is not of its form");
  }
  LoadRows stored;
  for (const dom::element point : points) {
    ASSIGN_OR_RETURN(const auto row, read_row(point, options_.dimension));
    stored.insert(row);
  }
  return verify_some(ids, stored);
}

Result<LoadRows> read_load_rows(HttpClient& client, const LoadOptions& options) {
  LoadRows stored;
  std::string cursor;
  while (true) {
    const auto answer =
        client.call("POST", fmt::format("/collections/{}/points/scroll", options.collection),
                    fmt::format("{{\"limit\":{},\"include_values\":true{}}}", kPageRows, cursor));
    if (!answer.has_value()) return answer.error();
    if (answer->status != 200) return unavailable("cannot read back: " + answer->body);
    dom::parser parser;
    dom::element page, next;
    dom::array points;
    if (parser.parse(answer->body).get(page) != simdjson::SUCCESS ||
        page["points"].get(points) != simdjson::SUCCESS ||
        page["next_cursor"].get(next) != simdjson::SUCCESS) {
      return internal_error("a page of a scroll is not of its form");
    }
    for (const dom::element point : points) {
      ASSIGN_OR_RETURN(const auto row, read_row(point, options.dimension));
      if (!stored.insert(row).second) {
        return internal_error(fmt::format("id {} is listed twice", row.first));
      }
    }
    if (next.is_null()) return stored;
    cursor = ",\"cursor\":" + simdjson::minify(next);
  }
}

Status verify_load(HttpClient& client, const LoadOptions& options,
                   std::vector<std::unique_ptr<LoadClient>>& clients) {
  ASSIGN_OR_RETURN(const LoadRows stored, read_load_rows(client, options));
  const uint64_t ids = clients.size() * options.keys_each;
  if (!stored.empty() && stored.rbegin()->first >= ids) {
    return internal_error(fmt::format("a phantom: id {} is nobody's", stored.rbegin()->first));
  }
  uint64_t present = 0;
  for (const auto& one : clients) {
    RETURN_IF_ERROR(one->verify(stored));
    present += one->present();
  }
  const auto answer =
      client.call("POST", fmt::format("/collections/{}/points/count", options.collection), "{}");
  if (!answer.has_value()) return answer.error();
  dom::parser parser;
  dom::element body;
  if (parser.parse(answer->body).get(body) != simdjson::SUCCESS) {
    return internal_error("an answer to count is not of its form");
  }
  const auto counted = number_in(body, "count");
  if (counted != present) {
    return internal_error(fmt::format("count says {}, there are {}", answer->body, present));
  }
  return {};
}

Status create_load_collection(HttpClient& client, const LoadOptions& options,
                              std::string_view metric) {
  std::string body =
      fmt::format("{{\"name\":\"{}\",\"dimension\":{}", options.collection, options.dimension);
  if (!metric.empty()) body += fmt::format(",\"metric\":\"{}\"", metric);
  const auto answer = client.call("POST", "/collections", body + "}");
  if (!answer.has_value()) return answer.error();
  return status_of(*answer);
}

}  // namespace aionbd
