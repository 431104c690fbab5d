// Checks of what no input can cause. CHECK_* stay on in release, DCHECK_* do not.
// Never reachable by request, file content or environment: those get a Status.
#pragma once

#include <sstream>
#include <string_view>

namespace aionbd {

/// Prints `text` with its place to stderr and aborts.
[[noreturn]] void check_failed(const char* file, int line, std::string_view text);

template <typename A, typename B>
[[noreturn]] void check_op_failed(const char* file, int line, const char* text, const A& a,
                                  const B& b) {
  std::ostringstream out;
  out << text << " (" << a << " vs " << b << ")";
  check_failed(file, line, out.str());
}

}  // namespace aionbd

#define CHECK_TRUE(condition) \
  ((condition) ? (void)0 : ::aionbd::check_failed(__FILE__, __LINE__, #condition))
#define CHECK_OP(a, op, b)                                                                  \
  do {                                                                                      \
    const auto& check_a_ = (a);                                                             \
    const auto& check_b_ = (b);                                                             \
    if (!(check_a_ op check_b_)) {                                                          \
      ::aionbd::check_op_failed(__FILE__, __LINE__, #a " " #op " " #b, check_a_, check_b_); \
    }                                                                                       \
  } while (false)
#define CHECK_EQ(a, b) CHECK_OP(a, ==, b)
#define CHECK_NE(a, b) CHECK_OP(a, !=, b)
#define CHECK_LT(a, b) CHECK_OP(a, <, b)
#define CHECK_LE(a, b) CHECK_OP(a, <=, b)
#define CHECK_GE(a, b) CHECK_OP(a, >=, b)
#define CHECK_GT(a, b) CHECK_OP(a, >, b)

#ifdef NDEBUG
#define DCHECK_TRUE(condition) static_cast<void>(sizeof(condition))
#define DCHECK_OP(a, op, b) static_cast<void>(sizeof((a)op(b)))
#else
#define DCHECK_TRUE(condition) CHECK_TRUE(condition)
#define DCHECK_OP(a, op, b) CHECK_OP(a, op, b)
#endif
#define DCHECK_EQ(a, b) DCHECK_OP(a, ==, b)
#define DCHECK_LT(a, b) DCHECK_OP(a, <, b)
#define DCHECK_LE(a, b) DCHECK_OP(a, <=, b)
