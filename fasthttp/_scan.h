/* Scanning of request heads, sixteen bytes at a time where the machine can.
 *
 * Every function reads only [p, end). The scalar forms define the result;
 * the vector forms are checked against them (fh_scan_check).
 */
#ifndef FASTHTTP_SCAN_H
#define FASTHTTP_SCAN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#define FH_VECTOR "sse2"
#elif defined(__aarch64__) && defined(__ARM_NEON)
#include <arm_neon.h>
#define FH_VECTOR "neon"
#else
#define FH_VECTOR "scalar"
#endif

typedef unsigned char fh_byte;

/* RFC 9110 section 5.6.2: tchar. */
static const fh_byte fh_tchar[256] = {
    ['!'] = 1, ['#'] = 1, ['$'] = 1, ['%'] = 1, ['&'] = 1, ['\''] = 1,
    ['*'] = 1, ['+'] = 1, ['-'] = 1, ['.'] = 1, ['^'] = 1, ['_'] = 1,
    ['`'] = 1, ['|'] = 1, ['~'] = 1,
    ['0'] = 1, ['1'] = 1, ['2'] = 1, ['3'] = 1, ['4'] = 1, ['5'] = 1,
    ['6'] = 1, ['7'] = 1, ['8'] = 1, ['9'] = 1,
    ['A'] = 1, ['B'] = 1, ['C'] = 1, ['D'] = 1, ['E'] = 1, ['F'] = 1,
    ['G'] = 1, ['H'] = 1, ['I'] = 1, ['J'] = 1, ['K'] = 1, ['L'] = 1,
    ['M'] = 1, ['N'] = 1, ['O'] = 1, ['P'] = 1, ['Q'] = 1, ['R'] = 1,
    ['S'] = 1, ['T'] = 1, ['U'] = 1, ['V'] = 1, ['W'] = 1, ['X'] = 1,
    ['Y'] = 1, ['Z'] = 1,
    ['a'] = 1, ['b'] = 1, ['c'] = 1, ['d'] = 1, ['e'] = 1, ['f'] = 1,
    ['g'] = 1, ['h'] = 1, ['i'] = 1, ['j'] = 1, ['k'] = 1, ['l'] = 1,
    ['m'] = 1, ['n'] = 1, ['o'] = 1, ['p'] = 1, ['q'] = 1, ['r'] = 1,
    ['s'] = 1, ['t'] = 1, ['u'] = 1, ['v'] = 1, ['w'] = 1, ['x'] = 1,
    ['y'] = 1, ['z'] = 1,
};

static inline const fh_byte *
fh_token_end(const fh_byte *p, const fh_byte *end)
{
    while (p < end && fh_tchar[*p])
        p++;
    return p;
}

/* The first byte of a field value, or its line, that may not stand there:
 * any control but HTAB (RFC 9110 section 5.5). *high becomes non-zero if a
 * byte above 0x7f was passed. */
static inline const fh_byte *
fh_value_end_scalar(const fh_byte *p, const fh_byte *end, int *high)
{
    for (; p < end; p++) {
        if ((*p < 0x20 && *p != '\t') || *p == 0x7f)
            break;
        *high |= *p & 0x80;
    }
    return p;
}

/* The first byte outside 0x21..0x7e: the end of a request target. */
static inline const fh_byte *
fh_target_end_scalar(const fh_byte *p, const fh_byte *end)
{
    while (p < end && *p > 0x20 && *p < 0x7f)
        p++;
    return p;
}

static inline const fh_byte *
fh_find_scalar(const fh_byte *p, const fh_byte *end, fh_byte wanted)
{
    while (p < end && *p != wanted)
        p++;
    return p;
}

#if defined(__SSE2__)

static inline const fh_byte *
fh_value_end(const fh_byte *p, const fh_byte *end, int *high)
{
    const __m128i tab = _mm_set1_epi8('\t'), del = _mm_set1_epi8(0x7f);
    const __m128i top = _mm_set1_epi8(0x1f);
    while (end - p >= 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)p);
        /* unsigned v <= 0x1f  <=>  min(v, 0x1f) == v */
        __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(v, top), v);
        __m128i stop = _mm_or_si128(
            _mm_andnot_si128(_mm_cmpeq_epi8(v, tab), control),
            _mm_cmpeq_epi8(v, del));
        unsigned mask = (unsigned)_mm_movemask_epi8(stop);
        /* Of the bytes below the lowest of the mask. */
        *high |= _mm_movemask_epi8(v) & (int)(~mask & (mask - 1));
        if (mask)
            return p + __builtin_ctz(mask);
        p += 16;
    }
    return fh_value_end_scalar(p, end, high);
}

static inline const fh_byte *
fh_target_end(const fh_byte *p, const fh_byte *end)
{
    /* Signed: bytes above 0x7f are negative, so below 0x21. */
    const __m128i low = _mm_set1_epi8(0x21), del = _mm_set1_epi8(0x7f);
    while (end - p >= 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)p);
        __m128i stop =
            _mm_or_si128(_mm_cmplt_epi8(v, low), _mm_cmpeq_epi8(v, del));
        unsigned mask = (unsigned)_mm_movemask_epi8(stop);
        if (mask)
            return p + __builtin_ctz(mask);
        p += 16;
    }
    return fh_target_end_scalar(p, end);
}

static inline const fh_byte *
fh_find(const fh_byte *p, const fh_byte *end, fh_byte wanted)
{
    const __m128i needle = _mm_set1_epi8((char)wanted);
    while (end - p >= 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)p);
        unsigned mask =
            (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, needle));
        if (mask)
            return p + __builtin_ctz(mask);
        p += 16;
    }
    return fh_find_scalar(p, end, wanted);
}

#elif defined(__aarch64__) && defined(__ARM_NEON)

/* Four bits for each byte of a comparison's result. */
static inline uint64_t
fh_neon_mask(uint8x16_t v)
{
    return vget_lane_u64(
        vreinterpret_u64_u8(vshrn_n_u16(vreinterpretq_u16_u8(v), 4)), 0);
}

static inline const fh_byte *
fh_value_end(const fh_byte *p, const fh_byte *end, int *high)
{
    while (end - p >= 16) {
        uint8x16_t v = vld1q_u8(p);
        uint8x16_t stop = vorrq_u8(
            vbicq_u8(vcltq_u8(v, vdupq_n_u8(0x20)),
                     vceqq_u8(v, vdupq_n_u8('\t'))),
            vceqq_u8(v, vdupq_n_u8(0x7f)));
        uint64_t mask = fh_neon_mask(stop);
        uint64_t above = fh_neon_mask(vcgeq_u8(v, vdupq_n_u8(0x80)));
        *high |= (above & ~mask & (mask - 1)) != 0;
        if (mask)
            return p + (__builtin_ctzll(mask) >> 2);
        p += 16;
    }
    return fh_value_end_scalar(p, end, high);
}

static inline const fh_byte *
fh_target_end(const fh_byte *p, const fh_byte *end)
{
    while (end - p >= 16) {
        uint8x16_t v = vld1q_u8(p);
        uint8x16_t stop = vorrq_u8(vcltq_u8(v, vdupq_n_u8(0x21)),
                                   vcgtq_u8(v, vdupq_n_u8(0x7e)));
        uint64_t mask = fh_neon_mask(stop);
        if (mask)
            return p + (__builtin_ctzll(mask) >> 2);
        p += 16;
    }
    return fh_target_end_scalar(p, end);
}

static inline const fh_byte *
fh_find(const fh_byte *p, const fh_byte *end, fh_byte wanted)
{
    while (end - p >= 16) {
        uint64_t mask =
            fh_neon_mask(vceqq_u8(vld1q_u8(p), vdupq_n_u8(wanted)));
        if (mask)
            return p + (__builtin_ctzll(mask) >> 2);
        p += 16;
    }
    return fh_find_scalar(p, end, wanted);
}

#else
#define fh_value_end fh_value_end_scalar
#define fh_target_end fh_target_end_scalar
#define fh_find fh_find_scalar
#endif

/* Does the text equal the lower-case letters-and-hyphens `name`? A set bit
 * 0x20 in `fold` stands at each letter, so that only its two cases match;
 * one bit of `places` for each byte of the name. */
#define FH_NAME_ROOM 32

typedef struct {
    fh_byte lower[FH_NAME_ROOM];
    fh_byte fold[FH_NAME_ROOM];
    uint32_t places;
    int size;
} fh_name;

static inline int
fh_name_equals(const fh_name *name, const fh_byte *p, const fh_byte *end)
{
    fh_byte padded[FH_NAME_ROOM] = {0};
    int i;
    if (end - p < FH_NAME_ROOM) {
        if (end - p < name->size)
            return 0;
        memcpy(padded, p, (size_t)name->size);
        p = padded;
    }
#if defined(__SSE2__)
    for (i = 0; i < name->size; i += 16) {
        __m128i text = _mm_loadu_si128((const __m128i *)(p + i));
        __m128i fold = _mm_loadu_si128((const __m128i *)(name->fold + i));
        __m128i lower = _mm_loadu_si128((const __m128i *)(name->lower + i));
        uint32_t same = (uint32_t)_mm_movemask_epi8(
            _mm_cmpeq_epi8(_mm_or_si128(text, fold), lower));
        if (~same & name->places >> i & 0xffff)
            return 0;
    }
    return 1;
#else
    for (i = 0; i < name->size; i++)
        if ((p[i] | name->fold[i]) != name->lower[i])
            return 0;
    return 1;
#endif
}

static inline uint64_t
fh_word(const fh_byte *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

static inline uint64_t
fh_half_word(const fh_byte *p)
{
    uint32_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

/* Of a value under the name `seed`: of its first 16 and last 32 bytes. Each
 * step is a bijection of the state, so that no byte is lost on the way. */
static inline uint32_t
fh_hash(const fh_byte *p, ptrdiff_t size, uint32_t seed)
{
    const uint64_t odd = 0x9e3779b97f4a7c15;
    const fh_byte *last = p + size;
    uint64_t a = seed, b = (uint64_t)size;
    if (size >= 16) {
        a = (a ^ fh_word(p)) * odd;
        b = (b ^ fh_word(p + 8)) * odd;
        if (size > 32) {
            a = (a ^ fh_word(last - 32)) * odd;
            b = (b ^ fh_word(last - 24)) * odd;
        }
        a = (a ^ fh_word(last - 16)) * odd;
        b = (b ^ fh_word(last - 8)) * odd;
    } else if (size >= 8) {
        a = (a ^ fh_word(p)) * odd;
        b = (b ^ fh_word(last - 8)) * odd;
    } else if (size >= 4) {
        a = (a ^ fh_half_word(p)) * odd;
        b = (b ^ fh_half_word(last - 4)) * odd;
    } else if (size > 0) {
        a = (a ^ p[0] ^ (uint64_t)p[size >> 1] << 8) * odd;
        b = (b ^ last[-1]) * odd;
    }
    return (uint32_t)(((a ^ (b << 32 | b >> 32)) * odd) >> 32);
}

static inline int
fh_hex_value(fh_byte c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Writes at most `size` bytes to `to`, returns how many. */
static inline ptrdiff_t
fh_percent_decode(const fh_byte *p, ptrdiff_t size, char *to)
{
    const fh_byte *end = p + size;
    char *start = to;
    while (p < end) {
        if (*p == '%' && end - p > 2 && fh_hex_value(p[1]) >= 0
            && fh_hex_value(p[2]) >= 0) {
            *to++ = (char)(fh_hex_value(p[1]) * 16 + fh_hex_value(p[2]));
            p += 3;
        } else {
            *to++ = (char)*p++;
        }
    }
    return to - start;
}

/* Offset where both forms of a scan first disagree on [p, end), or -1. */
static inline int
fh_scan_check(const fh_byte *p, const fh_byte *end)
{
    const fh_byte *at;
    for (at = p; at <= end; at++) {
        int fast = 0, slow = 0;
        if (fh_value_end(at, end, &fast)
                != fh_value_end_scalar(at, end, &slow)
            || !slow != !fast
            || fh_target_end(at, end) != fh_target_end_scalar(at, end)
            || fh_find(at, end, ':') != fh_find_scalar(at, end, ':'))
            return (int)(at - p);
    }
    return -1;
}

#endif
