// The whole error model: `Code`, `Status`, `Result<T>`.
//
// One code set from the disk to the SDKs. A code exists only where a caller reacts differently to
// it. Messages are static text first, the values last:
// "dimension differs from the collection's: got 3, want 768".
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace aionbd {

/// What the caller should do about an error. Persistent in SDKs: never renumber.
enum class Code : uint8_t {
  kOk = 0,
  kInvalidArgument = 1,     // fix the request
  kNotFound = 2,            // the named thing is not there
  kAlreadyExists = 3,       // the named thing is there already
  kFailedPrecondition = 4,  // bring the system to another state first
  kResourceExhausted = 5,   // slow down, or free memory or quota
  kUnauthenticated = 6,     // say who you are
  kPermissionDenied = 7,    // you may not
  kDeadlineExceeded = 8,    // time ran out before anything changed
  kUnavailable = 9,   // not now (starting, stopping, storage failed); the outcome of a write is
                      // unknown: repeat it
  kCorruption = 10,   // stored bytes are damaged: restore or repair
  kIoError = 11,      // the medium refused: an operator must look
  kStorageFull = 12,  // no space: reads and deletes go on, writes resume when space returns
  kInternal = 13,     // our defect
  kInUse = 14,        // another process holds the data directory
};

/// Stable lower-case name of a code, e.g. "invalid_argument".
std::string_view code_name(Code code);

/// Success, or a code and a message. Thread safety: compatible.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }
  /// "invalid_argument: dimension differs ...", or "ok".
  std::string to_string() const;
  /// The same code with `what` and ": " put before the message. REQUIRES: !ok().
  Status with_context(std::string_view what) const;

 private:
  Code code_ = Code::kOk;
  std::string message_;
};

inline Status invalid_argument(std::string message) {
  return Status(Code::kInvalidArgument, std::move(message));
}
inline Status not_found(std::string message) {
  return Status(Code::kNotFound, std::move(message));
}
inline Status already_exists(std::string message) {
  return Status(Code::kAlreadyExists, std::move(message));
}
inline Status failed_precondition(std::string message) {
  return Status(Code::kFailedPrecondition, std::move(message));
}
inline Status resource_exhausted(std::string message) {
  return Status(Code::kResourceExhausted, std::move(message));
}
inline Status deadline_exceeded(std::string message) {
  return Status(Code::kDeadlineExceeded, std::move(message));
}
inline Status unavailable(std::string message) {
  return Status(Code::kUnavailable, std::move(message));
}
inline Status corruption(std::string message) {
  return Status(Code::kCorruption, std::move(message));
}
inline Status io_error(std::string message) {
  return Status(Code::kIoError, std::move(message));
}
inline Status storage_full(std::string message) {
  return Status(Code::kStorageFull, std::move(message));
}
inline Status internal_error(std::string message) {
  return Status(Code::kInternal, std::move(message));
}

/// A value, or the status that says why there is none. Member names follow std::expected, which
/// this becomes when the floor compiler has it (docs/decisions/0001-own-result.md).
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  /// REQUIRES: !status.ok().
  Result(Status status) : state_(std::in_place_index<1>, std::move(status)) {
    if (std::get<1>(state_).ok()) fail("Result made of an ok Status");
  }

  bool has_value() const { return state_.index() == 0; }
  explicit operator bool() const { return has_value(); }

  /// REQUIRES: has_value(); aborts otherwise.
  T& value() & {
    require_value();
    return std::get<0>(state_);
  }
  const T& value() const& {
    require_value();
    return std::get<0>(state_);
  }
  /// By value, so that a range-for over `f().value()` does not outlive what it walks.
  T value() && {
    require_value();
    return std::get<0>(std::move(state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  /// REQUIRES: !has_value().
  const Status& error() const {
    if (has_value()) fail("error() of a Result that holds a value");
    return std::get<1>(state_);
  }
  /// The error, or an ok Status.
  Status status() const { return has_value() ? Status() : std::get<1>(state_); }

 private:
  [[noreturn]] static void fail(const char* what) {
    std::fputs(what, stderr);
    std::fputc('\n', stderr);
    std::abort();
  }
  void require_value() const {
    if (!has_value()) fail(std::get<1>(state_).to_string().c_str());
  }

  std::variant<T, Status> state_;
};

#define AIONBD_CONCAT_INNER(a, b) a##b
#define AIONBD_CONCAT(a, b) AIONBD_CONCAT_INNER(a, b)

/// Returns the error of `expr` (a Status) to the caller, if there is one.
#define RETURN_IF_ERROR(expr)                        \
  do {                                               \
    ::aionbd::Status aionbd_status_ = (expr);        \
    if (!aionbd_status_.ok()) return aionbd_status_; \
  } while (false)

/// Assigns the value of `expr` (a Result) to `lhs`, or returns its error to the caller.
#define ASSIGN_OR_RETURN(lhs, expr) \
  ASSIGN_OR_RETURN_INNER(AIONBD_CONCAT(aionbd_result_, __LINE__), lhs, expr)
#define ASSIGN_OR_RETURN_INNER(result, lhs, expr) \
  auto result = (expr);                           \
  if (!result.has_value()) return result.error(); \
  lhs = std::move(result).value()

}  // namespace aionbd
