/* The comparison of a request with an earlier one, and the reading of a plain one. lane_requests.py says what the functions do, and is
   the reference. No state. */
#include "../c_module.h"
#include <string.h>

#define MAX_DIGITS 9 /* of a body's length */

/* What is left of a request. */
struct text {
    const char *at, *end;
};

/* Takes `expected` away, if the text begins with it. */
static int
skip(struct text *text, const char *expected, Py_ssize_t size)
{
    if (text->end - text->at < size || memcmp(text->at, expected, (size_t)size))
        return 0;
    text->at += size;
    return 1;
}

#define SKIP(text, literal) skip(text, literal, (Py_ssize_t)sizeof(literal) - 1)

static int
is_in_word(char byte)
{
    return ('a' <= byte && byte <= 'z') || ('A' <= byte && byte <= 'Z') || ('0' <= byte && byte <= '9') || byte == '_' ||
           byte == '.' || byte == '~' || byte == '-';
}

/* Takes letters, digits and ``_.~-`` away. Returns how many. */
static Py_ssize_t
skip_word(struct text *text)
{
    const char *start = text->at;
    while (text->at < text->end && is_in_word(*text->at))
        text->at++;
    return text->at - start;
}

/* Takes the engine's part of a request line away, as engine.io-client sends it. Returns the size of the session id, and where it
   begins and the revision; 0 if it is something else. */
static Py_ssize_t
skip_query(struct text *text, const char **sid, long *revision)
{
    if (!SKIP(text, "EIO=") || text->at == text->end || (*text->at != '3' && *text->at != '4'))
        return 0;
    *revision = *text->at++ - '0';
    if (!SKIP(text, "&transport=polling"))
        return 0;
    for (;;) {
        if (SKIP(text, "&t="))
            skip_word(text);
        else if (!SKIP(text, "&b64=1"))
            break;
    }
    if (!SKIP(text, "&sid="))
        return 0;
    *sid = text->at;
    Py_ssize_t size = skip_word(text);
    if (SKIP(text, "&t="))
        skip_word(text);
    if (!SKIP(text, " HTTP/1.1") || text->end - text->at < 2 || memcmp(text->at, "\r\n", 2))
        return 0;
    return size;
}

/* Takes a number without leading zeros away; 0 if there is none. */
static long
skip_digits(struct text *text)
{
    long length = 0;
    const char *start = text->at;
    if (text->at < text->end && *text->at == '0')
        return 0;
    while (text->at < text->end && text->at - start < MAX_DIGITS && '0' <= *text->at && *text->at <= '9')
        length = 10 * length + (*text->at++ - '0');
    return length;
}

/* The same for a number that a line break follows. */
static long
skip_length(struct text *text)
{
    long length = skip_digits(text);
    return text->end - text->at >= 2 && !memcmp(text->at, "\r\n", 2) ? length : 0;
}

static PyObject *
match(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    int wrong = count != 4;
    for (Py_ssize_t i = 0; !wrong && i < count; i++)
        wrong = !PyBytes_CheckExact(arguments[i]);
    if (wrong) {
        PyErr_SetString(PyExc_TypeError, "match(data: bytes, beginning: bytes, fields: bytes, rest: bytes)");
        return NULL;
    }
    const char *data = PyBytes_AS_STRING(arguments[0]), *sid = data;
    struct text text = {data, data + PyBytes_GET_SIZE(arguments[0])};
    long revision = 0, length = 0;
    if (!skip(&text, PyBytes_AS_STRING(arguments[1]), PyBytes_GET_SIZE(arguments[1])))
        Py_RETURN_NONE;
    Py_ssize_t sid_size = skip_query(&text, &sid, &revision);
    if (!sid_size)
        Py_RETURN_NONE;
    Py_ssize_t line_size = text.at - data;
    if (!skip(&text, PyBytes_AS_STRING(arguments[2]), PyBytes_GET_SIZE(arguments[2])))
        Py_RETURN_NONE;
    if (PyBytes_GET_SIZE(arguments[3])) {
        length = skip_length(&text);
        if (!length || !skip(&text, PyBytes_AS_STRING(arguments[3]), PyBytes_GET_SIZE(arguments[3])))
            Py_RETURN_NONE;
    }
    return Py_BuildValue("s#lnnl", sid, sid_size, revision, line_size, text.at - data, length);
}

/* The fields of a plain request that are looked at, and those that no plain request has. */
enum field { HOST, ORIGIN, CONTENT_TYPE, ACCEPT_ENCODING, CONTENT_LENGTH, CONNECTION, KNOWN, ODD = KNOWN, NAMES = 15 };

static const char *const names[NAMES] = {
    "host", "origin", "content-type", "accept-encoding", "content-length", "connection", "expect", "forwarded", "proxy-connection",
    "transfer-encoding", "upgrade", "via", "x-forwarded-for", "x-forwarded-proto", "x-real-ip",
};

/* The index of a field's name, in letters of any case; `NAMES` for any other name. */
static int
find_name(const char *name, Py_ssize_t size)
{
    for (int i = 0; i < NAMES; i++) {
        const char *known = names[i];
        /* the first letter tells most of them */
        if ((name[0] | 0x20) == known[0] && strlen(known) == (size_t)size && !PyOS_mystrnicmp(name, known, size))
            return i;
    }
    return NAMES;
}

/* Takes a field away: a name of letters, digits and hyphens, and a value of printable ASCII. `fields` has the values of the known
   ones. Returns 0 if it is none, or such as no plain request has. */
static int
skip_field(struct text *text, struct text fields[KNOWN])
{
    const char *name = text->at;
    while (text->at < text->end && *text->at != '_' && *text->at != '.' && *text->at != '~' && is_in_word(*text->at))
        text->at++;
    Py_ssize_t size = text->at - name;
    if (!size || !SKIP(text, ":"))
        return 0;
    while (text->at < text->end && *text->at == ' ')
        text->at++;
    struct text value = {text->at, text->at};
    while (text->at < text->end && ' ' <= *text->at && *text->at <= '~')
        text->at++;
    for (value.end = text->at; value.end > value.at && value.end[-1] == ' ';)
        value.end--;
    if (!SKIP(text, "\r\n"))
        return 0;
    int index = find_name(name, size);
    if (index == NAMES)
        return 1;
    if (index >= ODD || fields[index].at)
        return 0;
    fields[index] = value;
    return 1;
}

/* Takes the line of a plain request away. Returns 0 if it is another one. */
static int
skip_line(struct text *text, int *is_post, struct text *path, struct text *sid)
{
    *is_post = SKIP(text, "POST ");
    if (!*is_post && !SKIP(text, "GET "))
        return 0;
    path->at = text->at;
    while (text->at < text->end && (*text->at == '/' || is_in_word(*text->at)))
        text->at++;
    path->end = text->at;
    if (path->end == path->at || *path->at != '/' || !SKIP(text, "?EIO=4&transport=polling"))
        return 0;
    if (SKIP(text, "&t="))
        skip_word(text);
    sid->at = sid->end = text->at;
    if (SKIP(text, "&sid=")) {
        sid->at = text->at;
        if (!skip_word(text))
            return 0;
        sid->end = text->at;
    }
    if (SKIP(text, "&t="))
        skip_word(text);
    return SKIP(text, " HTTP/1.1\r\n");
}

#define SIZE(text) ((text).end - (text).at)
#define EQUALS(text, literal) (SIZE(text) == sizeof(literal) - 1 && !memcmp((text).at, literal, sizeof(literal) - 1))

static PyObject *
read_plain(PyObject *Py_UNUSED(module), PyObject *data)
{
    if (!PyBytes_CheckExact(data)) {
        PyErr_SetString(PyExc_TypeError, "read_plain(data: bytes)");
        return NULL;
    }
    const char *start = PyBytes_AS_STRING(data);
    struct text text = {start, start + PyBytes_GET_SIZE(data)}, fields[KNOWN] = {{NULL, NULL}}, path, sid;
    int is_post, count = 0;
    long length = 0;
    if (!skip_line(&text, &is_post, &path, &sid))
        Py_RETURN_NONE;
    Py_ssize_t line_size = text.at - start - 2;
    for (; !SKIP(&text, "\r\n"); count++)
        if (!skip_field(&text, fields))
            Py_RETURN_NONE;
    if (!fields[HOST].at)
        Py_RETURN_NONE;
    if (fields[CONNECTION].at && !EQUALS(fields[CONNECTION], "keep-alive") && !EQUALS(fields[CONNECTION], "Keep-Alive"))
        Py_RETURN_NONE;
    if (fields[CONTENT_LENGTH].at && (!(length = skip_digits(&fields[CONTENT_LENGTH])) || SIZE(fields[CONTENT_LENGTH])))
        Py_RETURN_NONE;
    /* a POST has a body and a session, and a GET no body */
    if (is_post != (length > 0) || (is_post && !SIZE(sid)))
        Py_RETURN_NONE;
    return Py_BuildValue("s#s#Oy#nilz#z#z#z#", path.at, SIZE(path), sid.at, SIZE(sid), is_post ? Py_True : Py_False, start,
                         text.at - start, line_size, count, length, fields[HOST].at, SIZE(fields[HOST]), fields[ORIGIN].at,
                         SIZE(fields[ORIGIN]), fields[CONTENT_TYPE].at, SIZE(fields[CONTENT_TYPE]), fields[ACCEPT_ENCODING].at,
                         SIZE(fields[ACCEPT_ENCODING]));
}

static PyMethodDef functions[] = {
    {"match", (PyCFunction)(void (*)(void))match, METH_FASTCALL, NULL},
    {"read_plain", read_plain, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {LAST_SLOTS};

MODULE(c_lane_requests, "engineio_wsgi.http.c_lane_requests", functions, slots)
