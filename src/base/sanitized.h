// Which sanitizer the tests run under: sanitized runs are slow, and what they look for does not
// need the largest amounts of data or every combination of it.
#pragma once

namespace aionbd {

// GCC defines the macros, Clang answers the questions.
#if defined(__has_feature)
#define AIONBD_HAS_FEATURE(x) __has_feature(x)
#else
#define AIONBD_HAS_FEATURE(x) 0
#endif

#if defined(__SANITIZE_ADDRESS__) || AIONBD_HAS_FEATURE(address_sanitizer)
inline constexpr bool kAddressSanitized = true;
#else
inline constexpr bool kAddressSanitized = false;
#endif

#if defined(__SANITIZE_THREAD__) || AIONBD_HAS_FEATURE(thread_sanitizer)
inline constexpr bool kThreadSanitized = true;
#else
inline constexpr bool kThreadSanitized = false;
#endif

#undef AIONBD_HAS_FEATURE

inline constexpr bool kSanitized = kAddressSanitized || kThreadSanitized;

}  // namespace aionbd
