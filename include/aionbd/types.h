// The words of the public API: ids, metrics, payload values, points, hits, and the named limits.
#pragma once

#include <chrono>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace aionbd {

// ---- Limits ------------------------------------------------------------------------------------

/// Hard ceiling of `DatabaseOptions::dimension_max`; keeps one row below 256 KiB.
inline constexpr uint32_t kDimensionCeiling = 65536;
/// Bytes of a string id (Additions of the HTTP contract).
inline constexpr size_t kStringIdBytesMax = 512;
/// Characters of a collection name.
inline constexpr size_t kNameCharsMax = 128;
/// Nesting of a payload, of a filter and of any JSON text we read.
inline constexpr size_t kNestingMax = 64;
/// Clauses of one filter, nested ones included.
inline constexpr size_t kFilterClausesMax = 1024;
/// Bytes of one payload key; keys are names, not data.
inline constexpr size_t kPayloadKeyBytesMax = 256;
/// Bytes of one encoded payload: 1 MiB keeps a full batch of payloads a bounded log record.
inline constexpr size_t kPayloadBytesMax = size_t{1} << 20;
/// Bytes of one log record, so that a damaged length can never ask for more.
inline constexpr size_t kRecordBytesMax = size_t{1} << 30;
/// Positions skipped by `offset` in listing; beyond it a cursor must be used.
inline constexpr uint64_t kListOffsetMax = 100000;

// ---- Ids ---------------------------------------------------------------------------------------

/// The two kinds of point id; one collection has one kind. Persistent, never renumber.
enum class IdType : uint8_t { kU64 = 0, kString = 1 };

/// The user's name of a point: an unsigned 64-bit number, or 1..512 bytes of UTF-8.
/// Ordered numerically or by bytes. Never mix with a row position in a segment.
class PointId {
 public:
  PointId() = default;
  PointId(uint64_t number) : number_(number) {}
  PointId(std::string text) : type_(IdType::kString), text_(std::move(text)) {}
  PointId(std::string_view text) : type_(IdType::kString), text_(text) {}
  PointId(const char* text) : type_(IdType::kString), text_(text) {}

  IdType type() const { return type_; }
  uint64_t number() const { return number_; }
  const std::string& text() const { return text_; }

  friend bool operator==(const PointId&, const PointId&) = default;
  friend std::strong_ordering operator<=>(const PointId& a, const PointId& b) {
    if (a.type_ != b.type_) return a.type_ <=> b.type_;
    if (a.type_ == IdType::kU64) return a.number_ <=> b.number_;
    return a.text_.compare(b.text_) <=> 0;
  }
  /// Decimal digits, or the text itself.
  std::string to_string() const { return type_ == IdType::kU64 ? std::to_string(number_) : text_; }

 private:
  IdType type_ = IdType::kU64;
  uint64_t number_ = 0;
  std::string text_;
};

// ---- Metrics -----------------------------------------------------------------------------------

/// How far apart two vectors are. Persistent, never renumber.
enum class Metric : uint8_t {
  kDot = 0,     // inner product; higher is closer
  kL2 = 1,      // Euclidean distance, with the square root; lower is closer
  kCosine = 2,  // cosine similarity; higher is closer
};
inline constexpr size_t kMetricsCount = 3;

// ---- Payload -----------------------------------------------------------------------------------

/// One JSON value. Integers keep their exact value: `int64_t` where it fits, `uint64_t` above.
/// Objects are ordered by key (bytes), so equal payloads have one encoding.
class Value {
 public:
  using Array = std::vector<Value>;
  using Object = std::map<std::string, Value, std::less<>>;
  using Data =
      std::variant<std::nullptr_t, bool, int64_t, uint64_t, double, std::string, Array, Object>;

  Value() : data_(nullptr) {}
  Value(std::nullptr_t) : data_(nullptr) {}
  Value(bool value) : data_(value) {}
  Value(int value) : data_(int64_t{value}) {}
  Value(int64_t value) : data_(value) {}
  /// A number that fits int64 is kept as int64: one value, one representation.
  Value(uint64_t value) {
    if (value <= static_cast<uint64_t>(INT64_MAX)) {
      data_ = static_cast<int64_t>(value);
    } else {
      data_ = value;
    }
  }
  Value(double value) : data_(value) {}
  Value(std::string value) : data_(std::move(value)) {}
  Value(std::string_view value) : data_(std::string(value)) {}
  Value(const char* value) : data_(std::string(value)) {}
  Value(Array value) : data_(std::move(value)) {}
  Value(Object value) : data_(std::move(value)) {}

  const Data& data() const { return data_; }
  Data& data() { return data_; }
  friend bool operator==(const Value&, const Value&) = default;

 private:
  Data data_;
};

/// What a point carries beside its vector: a JSON object with non-blank keys.
using Payload = Value::Object;

// ---- Points, hits ------------------------------------------------------------------------------

struct Point {
  PointId id;
  std::vector<float> values;  // float[dimension]
  Payload payload;
};

/// One answer of a search, best first. `score` is a similarity for dot and cosine, a distance for
/// l2; NaN or infinite when the stored row makes it so (non-strict collections), ranked last.
struct Hit {
  PointId id;
  float score = 0;
  std::optional<Payload> payload;            // when asked for
  std::optional<std::vector<float>> values;  // when asked for
};

/// When a call gives up. Checked before a write enters the log, never after.
using Deadline = std::chrono::steady_clock::time_point;
inline constexpr Deadline kNoDeadline = Deadline::max();

}  // namespace aionbd
