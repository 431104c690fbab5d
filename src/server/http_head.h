// The strict reading of an HTTP/1.1 request: its head, its chunked body, its path and query.
//
// Request smuggling lives in what two parsers read differently, so this one accepts only what has
// exactly one reading (RFC 9112 with every "may accept" refused) and says 400 to the rest. It works
// on complete text and keeps no state except in `ChunkDecoder`; sockets are http.cc's business. The
// fuzzer and the tests hold it against Boost.Beast's parser: what is accepted here must mean the
// same there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace aionbd {

/// Bytes of a request head. Twice what browsers send at worst; cookies do not matter here.
inline constexpr size_t kHeadBytesMax = 16 * 1024;
/// Bytes of one line of the head, the request line included.
inline constexpr size_t kHeadLineBytesMax = 8 * 1024;
inline constexpr size_t kHeadFieldsMax = 100;
/// Bytes of the extensions of one chunk. Nobody uses them; they are a way to send without end.
inline constexpr size_t kChunkExtensionBytesMax = 256;
inline constexpr size_t kTrailerBytesMax = 8 * 1024;

/// A request that is refused by the protocol layer itself.
struct HttpFault {
  int status = 400;
  std::string_view code = "invalid_argument";
  std::string message;
  /// Not HTTP at all: close without an answer.
  bool drop = false;
};

enum class HttpMethod : uint8_t { kGet, kHead, kPost, kPut, kDelete, kOther };

struct HttpField {
  std::string_view name;   // as sent; compare without case
  std::string_view value;  // without outer blanks
};

/// One request head. All views point into the text it was parsed from.
struct HttpHead {
  HttpMethod method = HttpMethod::kOther;
  std::string_view method_text;
  std::string_view path;   // raw: still percent-encoded; starts with '/', or is "*" or an authority
  std::string_view query;  // raw, without '?'
  int version_minor = 1;   // HTTP/1.x
  std::vector<HttpField> fields;

  bool keep_alive = true;
  bool chunked = false;
  std::optional<uint64_t> content_length;
  bool expect_continue = false;

  /// Value of the first field of that name (lower case), or null.
  const std::string_view* find(std::string_view lower_name) const;
  bool has_body() const { return chunked || content_length.value_or(0) > 0; }
};

/// Where a head ends in what has arrived so far.
struct HeadScan {
  size_t begin = 0;  // after one optional empty line
  size_t end = 0;    // one past the empty line; 0 while incomplete
  std::optional<HttpFault> fault;
};

/// Looks for the end of the head in `text`, of which the first `scanned` bytes were seen before
/// without finding it. Refuses bare LF, bare CR, NUL and oversize at once, so that a hostile head
/// is answered before it is complete.
HeadScan scan_head(std::string_view text, size_t scanned);

/// Parses `text`, a whole head with its empty line. Returns the fault, if there is one.
std::optional<HttpFault> parse_head(std::string_view text, HttpHead& head);

/// Decodes a chunked body piece by piece. Thread safety: single owner.
class ChunkDecoder {
 public:
  enum class Progress : uint8_t { kMore, kDone, kBad, kTooLarge };

  /// Consumes from `in` (sets `used`), appends body bytes to the range it reports: at most one run
  /// of data per call, so call until `used` reaches the end or the result is not kMore.
  ///
  ///   data  the run of body bytes inside `in`; empty if none
  Progress feed(std::string_view in, uint64_t body_bytes_max, size_t& used, std::string_view& data);

  /// What was wrong; after kBad.
  std::string_view problem() const { return problem_; }
  void reset() { *this = ChunkDecoder(); }

 private:
  enum class State : uint8_t {
    kSize,
    kExtension,
    kSizeLf,
    kData,
    kDataCr,
    kDataLf,
    kTrailer,
    kDone
  };

  Progress step(char c, uint64_t body_bytes_max);
  Progress size_line_done();
  Progress trailer_byte(char c);
  Progress bad(std::string_view problem) {
    problem_ = problem;
    return Progress::kBad;
  }

  State state_ = State::kSize;
  uint64_t chunk_bytes_ = 0;  // size being read, then what is left of the chunk
  uint64_t total_bytes_ = 0;
  unsigned digits_ = 0;
  size_t extension_bytes_ = 0;
  size_t trailer_bytes_ = 0;
  std::string trailer_line_;
  std::string_view problem_;
};

/// Case-insensitive comparison of ASCII; `lower` is lower case already.
bool equals_ignoring_case(std::string_view text, std::string_view lower);

/// Decodes %XX once. `plus_is_space`: as in queries. Nothing if a '%' is not followed by two hex
/// digits, or the result is not UTF-8.
std::optional<std::string> percent_decode(std::string_view text, bool plus_is_space = false);

/// Splits "a=1&b=2" and decodes both sides. Nothing if something does not decode or a key comes
/// twice; `problem` then says what.
std::optional<std::vector<std::pair<std::string, std::string>>> parse_query(std::string_view query,
                                                                            std::string& problem);

/// True for 1..128 visible ASCII characters: fit to be echoed in a response head.
bool is_sane_request_id(std::string_view text);

}  // namespace aionbd
